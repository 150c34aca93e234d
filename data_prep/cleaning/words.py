"""The words of a text as arrays, and the scripts of its letters.

Rules for English count words between spaces. Chinese has no spaces, so a rule can instead count
each CJK character as a word. Words and letters of a whole text are found at once by table
lookups, which is faster than Python's string methods.
"""

import re
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WordMode = Literal["whitespace", "cjk"]

# Han, hiragana and katakana. Korean has spaces.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Marks that separate words in CJK text: general and CJK punctuation, full-width forms.
CJK_MARKS = "\xb7\u2010-\u2027\u3000-\u3004\u3008-\u3020\u30fb\ufe30-\ufe4f\uff01-\uff0f"
CJK_MARKS += "\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_CJK_WORD = re.compile(rf"[{CJK}]|[^\s{CJK}{CJK_MARKS}]+")

SCRIPTS = {
    "Latin": "A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u02af\u1d00-\u1d25\u1d62-\u1d65\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1eff\u2071\u207f\u2090-\u209c\u212a\u212b\u2132\u214e\u2183\u2184\u2c60-\u2c7f\ua722-\ua7ff"
    "\uab30-\uab64\uab66-\uab69\ufb00-\ufb06\uff21-\uff3a\uff41-\uff5a\U0001df00-\U0001df2a",
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U000323af",
    "Kana": "\u3041-\u309f\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f",
    "Hangul": "\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc",
    "Cyrillic": "\u0400-\u052f\u1c80-\u1c8f\u1d2b\u2de0-\u2dff\ua640-\ua69f",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u0870-\u08ff\ufb50-\ufdff\ufe70-\ufefe",
    "Devanagari": "\u0900-\u097f\ua8e0-\ua8ff\U00011b00-\U00011b5f",
    "Greek": "\u0370-\u03e1\u03f0-\u03ff\u1d26-\u1d2a\u1d66-\u1d6a\u1f00-\u1fff\uab65",
    "Hebrew": "\u0590-\u05ff\ufb1d-\ufb4f",
    "Thai": "\u0e00-\u0e7f",
}
OTHER_SCRIPT = len(SCRIPTS) + 1

_SPACE, _MARK, _CJK, _LETTER = 1, 2, 4, 8
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so its powers are never 0 modulo 2**64
_MIXER = np.uint64(0xBF58476D1CE4E5B9)
_FOLD = np.uint64(29)


def _members(ranges: str) -> NDArray[np.int64]:
    """Return the code points of a character class, given without its brackets."""
    found = re.findall(r"(.)(?:-(.))?", ranges, re.DOTALL)
    codes = [code for low, high in found for code in range(ord(low), ord(high or low) + 1)]
    return np.array(codes, dtype=np.int64)


@cache
def _kinds() -> NDArray[np.uint8]:
    """Return the flags of each code point, uint8 [0x110000]."""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    characters = list(map(chr, range(0x110000)))
    kinds[np.fromiter(map(str.isspace, characters), dtype=np.bool_)] |= _SPACE
    kinds[np.fromiter(map(str.isalpha, characters), dtype=np.bool_)] |= _LETTER
    kinds[_members(CJK_MARKS)] |= _MARK
    kinds[_members(CJK)] |= _CJK
    return kinds


@cache
def _scripts() -> NDArray[np.uint8]:
    """Return the script of each code point, uint8 [0x110000]: 0 if it is not a letter."""
    scripts = np.full(0x110000, OTHER_SCRIPT, dtype=np.uint8)
    for number, ranges in enumerate(SCRIPTS.values(), 1):
        scripts[_members(ranges)] = number
    scripts[_kinds() & _LETTER == 0] = 0
    return scripts


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def count_letters(text: str) -> dict[str, int]:
    """Return the number of letters (`str.isalpha`) of each script, including "other"."""
    counts = np.bincount(_scripts()[_code_points(text)], minlength=OTHER_SCRIPT + 1)
    return dict(zip([*SCRIPTS, "other"], counts[1:].tolist(), strict=True))


def count_words(text: str, mode: WordMode) -> int:
    """Return the number of words of a short text, such as a line."""
    return len(text.split()) if mode == "whitespace" else len(_CJK_WORD.findall(text))


def mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread 64-bit keys so that their upper bits depend on all of them (as splitmix64 does)."""
    mixed: NDArray[np.uint64] = (keys ^ (keys >> _FOLD)) * _MIXER
    mixed ^= mixed >> _FOLD
    return mixed


class Words:
    """The words of a text.

    Args:
        text: the text.
        mode: "whitespace": words are separated by white space. "cjk": each Han, hiragana and
            katakana character is a word; these, white space and CJK punctuation separate the
            other words.
    """

    lengths: NDArray[np.int64]
    """Characters of each word, int64 [W]."""
    alphabetic: NDArray[np.bool_]
    """Whether a word contains a letter, bool [W]."""

    def __init__(self, text: str, mode: WordMode) -> None:
        self._points = _code_points(text)
        kinds = _kinds()[self._points]
        inside = kinds & (_SPACE if mode == "whitespace" else _SPACE | _MARK) == 0
        begins = inside.copy()
        begins[1:] &= ~inside[:-1]
        if mode == "cjk":
            alone = kinds & _CJK != 0
            begins |= alone
            begins[1:] |= alone[:-1] & inside[1:]
        self._inside = inside
        self._starts = np.flatnonzero(begins)
        if len(self._starts):
            self.lengths = np.add.reduceat(inside, self._starts, dtype=np.int64)
            letters = np.maximum.reduceat(kinds & _LETTER, self._starts)
            self.alphabetic = letters != 0
        else:
            self.lengths = np.zeros(0, dtype=np.int64)
            self.alphabetic = np.zeros(0, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._starts)

    def keys(self) -> NDArray[np.uint64]:
        """Return a key of each word, uint64 [W]; equal words have equal keys.

        Two different words have equal keys with a probability of about 2**-64.
        """
        if not len(self._starts):
            return np.zeros(0, dtype=np.uint64)
        size = len(self._points)
        spans = np.diff(self._starts, append=size)
        begin = int(self._starts[0])
        place = np.arange(begin, size) - np.repeat(self._starts, spans)
        powers = np.cumprod(np.full(int(spans.max()), BASE, dtype=np.uint64))
        terms = mix(self._points[begin:].astype(np.uint64) + BASE) * powers[place]
        terms *= self._inside[begin:]
        return mix(np.add.reduceat(terms, self._starts - begin))
