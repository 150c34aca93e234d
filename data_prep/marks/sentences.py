"""Sentence starts in English and Chinese text.

A rule, not a model: fast, the same on every machine, and correct for ordinary punctuation.
"""

import re
from itertools import groupby

# A full stop after one of these does not end a sentence. "etc." and "Jr." are not included, because
# before a capital letter they usually end one.
ABBREVIATIONS = (
    *("Mr", "Mrs", "Ms", "Dr", "St", "Mt", "Lt", "vs", "cf", "e.g", "i.e", "Messrs", "Prof"),
    *("Capt", "Col", "Gen", "Gov", "Hon", "Maj", "Rep", "Rev", "Sen", "Sgt", "Fig", "Vol"),
)
HALF_STOPS = "!?…"
WIDE_STOPS = "。！？；"
STOPS = f".{HALF_STOPS}{WIDE_STOPS}\n"  # every boundary follows one of these
# The insides of character classes.
QUOTES = "\"'"  # close or open
CLOSERS = f"{QUOTES}”’」』）)\\]》»"
OPENERS = f"{QUOTES}“‘「『（(\\[《«"
CAPITALS = "A-Z0-9À-ÖØ-ÞΑ-ΫА-Я"
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# All alternatives of a lookbehind must have the same length.
_BY_LENGTH = [list(words) for _, words in groupby(sorted(ABBREVIATIONS, key=len), key=len)]
_NOT_ABBREVIATED = "".join(
    rf"(?<!\b(?:{'|'.join(map(re.escape, words))})\.)" for words in _BY_LENGTH
)
# The pattern begins with one plain character class, which the regex engine finds fast. The
# alternatives look back at which character it was. Repetitions of stops and quotes are bounded:
# otherwise, in a run of a million stops, each one would be tried to the end of the run.
BOUNDARY = re.compile(
    rf"""
    [{STOPS}]
    (?:
      # Newlines: the whole run of empty lines.
      (?<=\n) (?:[^\S\n]*\n)*
    | # Chinese: the run of stops and closing quotes. Before a newline, the newline decides.
      (?<=[{WIDE_STOPS}]) [{WIDE_STOPS}…]{{0,16}} [{CLOSERS}]{{0,8}}
      (?! [{WIDE_STOPS}…{CLOSERS}] | [^\S\n]*(?:\n|\Z) )
    | # English: stops, closing quotes, a space, then a capital or digit, perhaps in quotes.
      # Not after an abbreviation, an initial ("J."), or "No." before a number.
      (?<=[.{HALF_STOPS}]) (?<!\b[A-Z]\.) {_NOT_ABBREVIATED} (?! (?<=\bNo\.) \s*\d )
      [.{HALF_STOPS}]{{0,16}} [{CLOSERS}]{{0,8}}
      (?= [^\S\n]+ [{OPENERS}]{{0,8}} [{CAPITALS}{CJK}] )
    | # Half-width marks inside Chinese text.
      (?<=[{HALF_STOPS}]) [{HALF_STOPS}]{{0,16}} [{CLOSERS}]{{0,8}} (?= [{OPENERS}]{{0,8}} [{CJK}] )
    )
    """,
    re.VERBOSE,
)


def sentence_boundaries(text: str) -> list[int]:
    """Return the character positions at which sentences start, except the first sentence.

    A position is directly after the end of the previous sentence. So a space between two
    sentences belongs to the second one, as in SentencePiece. Newlines belong to the sentence
    before them.

    Returns:
        Ascending positions, each with 0 < position < len(text).
    """
    ends = [match.end() for match in BOUNDARY.finditer(text)]
    if ends and ends[-1] == len(text):
        ends.pop()
    return ends
