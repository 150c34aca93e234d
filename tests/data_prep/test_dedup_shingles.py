import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_support import chinese_text, english_text

from data_prep.dedup.shingles import CJK, WINDOW, shingle_hashes

Shingle = tuple[str, ...]
PIECES = [
    "Fox",
    "fox",
    "the",
    "3",
    "_",
    "-",
    " ",
    "\n",
    "，",
    "。",
    "好",
    "书",
    "ア",
    "é",
    "e\u0301",
]
PIECES += [
    "İ",
    "👍",
    "👩‍👩‍👧",
    "नमस्ते",
    "𠀀",
    "don't",
    "ＦＵＬＬ",
    "สวัสดี",
    "\ufeff",
    "\x00",
    "\U000e0041",
]
texts_strategy = st.lists(
    st.one_of(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.text(max_size=40)),
    max_size=8,
)


def words_of(text: str) -> list[str]:
    """The rule of the words, a character at a time."""
    words: list[str] = []
    open_word = False
    for character in text:
        if unicodedata.category(character)[0] not in "LMN":
            open_word = False
        elif any(first <= ord(character) <= last for first, last in CJK):
            words.append(character)
            open_word = False
        elif open_word:
            words[-1] += character.lower()[0]
        else:
            words.append(character.lower()[0])
            open_word = True
    return words


def shingles_of(text: str, ngram: int) -> list[Shingle]:
    words = words_of(text)
    if 0 < len(words) < ngram:
        return [tuple(words)]
    return [tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)]


def check(texts: list[str], ngram: int) -> None:
    """Hashes are equal exactly where the shingles are, in the same order."""
    hashes, offsets, words = shingle_hashes(texts, ngram)
    expected = [shingles_of(text, ngram) for text in texts]
    assert np.diff(offsets).tolist() == [len(shingles) for shingles in expected]
    assert words.tolist() == [len(words_of(text)) for text in texts]
    flat = [shingle for shingles in expected for shingle in shingles]
    pairs = set(zip(hashes.tolist(), flat, strict=True))
    assert len(pairs) == len(set(flat)) == len({value for value, _ in pairs})


@given(texts=texts_strategy, ngram=st.integers(1, 7))
def test_shingles_are_those_of_the_slow_rule(texts: list[str], ngram: int) -> None:
    check(texts, ngram)


def test_shingles_of_english_and_chinese_text() -> None:
    rng = random.Random(0)
    texts = [make(rng, rng.randint(1, 60)) for make in (english_text, chinese_text) * 40]
    check(texts, 5)
    check(["".join(texts), *texts], 3)


@given(texts=texts_strategy)
def test_a_batch_gives_what_its_texts_give(texts: list[str]) -> None:
    hashes, offsets, _ = shingle_hashes(texts, 5)
    parts = np.split(hashes, offsets[1:-1]) if texts else []
    for text, part in zip(texts, parts, strict=True):
        assert part.tolist() == shingle_hashes([text], 5)[0].tolist()


def test_case_and_punctuation_do_not_count() -> None:
    same = [
        "The quick, brown fox jumps!",
        "the QUICK brown fox -- jumps",
        "the\nquick brown fox jumps",
    ]
    hashes, offsets, words = shingle_hashes(same, 5)
    assert offsets.tolist() == [0, 1, 2, 3]
    assert len(set(hashes.tolist())) == 1
    assert words.tolist() == [5, 5, 5]
    chinese = shingle_hashes(["这本书，非常好。", "这本书非常好！"], 5)[0]
    assert chinese[:2].tolist() == chinese[2:].tolist()


def test_texts_longer_than_a_window() -> None:
    rng = random.Random(1)
    chinese = "".join(rng.choices("我你他好书山河城火车窗户冬天", k=2 * WINDOW + 77))
    english = english_text(rng, 6000)
    assert len(english) > WINDOW
    hashes, offsets, words = shingle_hashes(["short one", chinese, "", english, "end"], 5)
    # Every character is a word, so that the seams between windows do not show.
    assert words.tolist()[1] == len(chinese)
    alone = shingle_hashes([chinese], 5)[0].tolist()
    assert hashes[offsets[1] : offsets[2]].tolist() == alone
    assert len(set(alone)) == len(set(shingles_of(chinese, 5)))
    # A word over a seam counts as two.
    seams = -(-len(english) // WINDOW) - 1
    assert 0 <= words[3] - len(words_of(english)) <= seams
    assert hashes[offsets[3] : offsets[4]].tolist() == shingle_hashes([english], 5)[0].tolist()


@pytest.mark.parametrize("texts", [[], [""], ["", "...", " \n", "👍"]])
def test_texts_without_words_have_no_shingles(texts: list[str]) -> None:
    hashes, offsets, words = shingle_hashes(texts, 5)
    assert len(hashes) == 0
    assert offsets.tolist() == [0] * (len(texts) + 1)
    assert words.tolist() == [0] * len(texts)


def test_hashes_are_the_same_everywhere() -> None:
    hashes, _, _ = shingle_hashes(["one two three four five six", "今天天气很好"], 5)
    assert hashes.tolist() == [
        15924770213376619319,
        16793926035923807125,
        13441657787879202986,
        975507482997345169,
    ]
