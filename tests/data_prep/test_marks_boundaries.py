"""Boundaries by arrays are those of the pattern, and the pattern is seldom asked."""

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.marks import boundaries
from data_prep.marks.boundaries import find_boundaries
from data_prep.marks.sentences import (
    ABBREVIATIONS,
    CLOSERS,
    OPENERS,
    STOPS,
    sentence_boundaries,
)

STOPPING = [*STOPS, "...", "……", "?!", "\n\n"]
QUOTING = [*CLOSERS.replace("\\", ""), *OPENERS.replace("\\", "")]
BLANKS = [" ", "  ", "\t", "\r", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000"]
WORDS = ["Mr", "Mrs", "No", "e.g", "Messrs", "Hon", "on", "J", "Z", "U.S", "É", "Я", "é", "α"]
OTHERS = [
    *"azAZ059٣_-,",
    "我",
    "ア",
    "豈",
    "𠀀",
    "\U0003ffff",
    "\U00040000",
    "😀",
    "\u0301",
    "\x00",
]
# The few of which most of a text is made, so that they meet.
COMMON = [". ", ".", "?", "。", "！", "\n", " ", '"', "”", "“", "A", "a", "5", "我"]
TEXTS = st.one_of(
    st.lists(st.sampled_from([*STOPPING, *QUOTING, *BLANKS, *WORDS, *OTHERS]), max_size=12),
    st.lists(st.sampled_from(COMMON), max_size=12),
    st.lists(st.sampled_from([*STOPPING, *BLANKS, "A", "我", "x"]), max_size=12),
).map("".join)


def found_in(texts: list[str]) -> list[list[int]]:
    places, counts = find_boundaries(texts)
    assert len(counts) == len(texts)
    edges = [0, *accumulate(counts.tolist())]
    assert edges[-1] == len(places)
    return [places[edges[i] : edges[i + 1]].tolist() for i in range(len(texts))]


@given(st.lists(TEXTS, max_size=12))
@settings(deadline=None, max_examples=1500)
def test_they_are_those_of_the_pattern(texts: list[str]) -> None:
    assert found_in(texts) == [sentence_boundaries(text) for text in texts]


@given(st.lists(st.text(max_size=20), max_size=6))
@settings(deadline=None)
def test_any_text(texts: list[str]) -> None:
    assert found_in(texts) == [sentence_boundaries(text) for text in texts]


def test_every_short_text() -> None:
    """All of up to four of the characters that decide, and an abbreviation."""
    units = [".", "!", "…", "。", "\n", '"', "”", "“", " ", "A", "a", "我", "Mr"]
    texts = [""]
    for _ in range(4):
        texts = sorted({text + unit for text in texts for unit in ["", *units]})
    assert len(texts) > 30_000
    assert found_in(texts) == [sentence_boundaries(text) for text in texts]
    texts = [f"x{text} B" for text in texts]
    assert found_in(texts) == [sentence_boundaries(text) for text in texts]


@pytest.mark.parametrize("word", [*ABBREVIATIONS, "No", "J", "Z"])
def test_abbreviations(word: str) -> None:
    befores = ["", " ", "(", "_", "x", "é", "我", "\U0001f600"]
    texts = [f"{before}{word}.{after}" for before in befores for after in (" B", " 5", ") 5", " x")]
    assert found_in(texts) == [sentence_boundaries(text) for text in texts]
    assert found_in([f" {word}. 5"]) == [[]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("It rains. ", "We stay."),  # nothing is looked up in the next text
        ("It rains.", "我们"),
        ("一句。 ", "又一句"),
        ("One\n  ", "\nTwo"),
        ("One\n", " \n \nTwo"),
        ("We saw Mr", ". Brown"),
        ("x", "J. Brown"),
        ("Wait..", "... He"),
        ("", ""),
    ],
)
def test_texts_do_not_touch(before: str, after: str) -> None:
    for texts in ([before, after], [before], [after, before, after]):
        assert found_in(texts) == [sentence_boundaries(text) for text in texts]


PROSE = {
    "English": (
        'It rained in May. "We stay," she said. "Why?" he asked. (Nobody knew.) \n\n'
        "Version 3.5 is out! See e.g. the list (page 5).\n    An indented line?\n  Another.\n"
    ),
    "Chinese": (
        "五月下雨了。“我们留下吧。”她说。为什么？没有人知道！\n\n　　第二段：3.5 版；完。\n好。\n"
    ),
}


@pytest.mark.parametrize("language", PROSE)
def test_the_pattern_is_seldom_asked(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs as much as tens of stops that are decided by the table."""
    asked = []
    for name in ("_match_pattern", "_match_next_line"):
        ask = getattr(boundaries, name)

        def counting(joined, places, *limits, ask=ask):  # type: ignore[no-untyped-def]
            asked.extend(places)
            return ask(joined, places, *limits)

        monkeypatch.setattr(boundaries, name, counting)
    text = PROSE[language] * 20
    assert found_in([text]) == [sentence_boundaries(text)]
    stops = sum(text.count(stop) for stop in STOPS)
    assert len(asked) <= 0.15 * stops
