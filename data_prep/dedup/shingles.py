"""Hashes of the shingles (runs of n words) of many texts at once.

A word is a run of letters, digits and combining marks (Unicode categories L, N and M), in lower
case. A CJK character is a separate word. All other characters only separate words. A shingle is n
consecutive words; a text of fewer words has one shingle, of all its words.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

UNICODE_VERSION = unicodedata.unidata_version
"""The set of letters depends on it, because later versions of Unicode add characters."""

WINDOW = 1 << 17
"""Characters that are hashed at a time, so that the arrays fit into the processor's cache."""

# Kana, ideographs with extension A, compatibility ideographs, extensions B and later.
CJK = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))

_CODES = 0x323B0  # no higher code point is a letter
_ALONE = np.uint32(1 << 31)  # marks a character that is a separate word
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_NEXT_WORD = 0xD1342543DE82EF95
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix hashes with the finalizer of SplitMix64 (Steele et al., 2014), a bijection."""
    out: NDArray[np.uint64] = hashes ^ (hashes >> np.uint64(30))
    out *= _MIX_1
    out ^= out >> np.uint64(27)
    out *= _MIX_2
    out ^= out >> np.uint64(31)
    return out


def shingle_hashes(
    texts: Sequence[str], ngram: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the hashes of the shingles of D texts, with repeats.

    Args:
        texts: the texts; UTF-8 must be able to encode them.
        ngram: number of words in a shingle.

    Returns:
        The hashes, one text after another, uint64 [S]; the begin of each text's hashes and the
        end of the last ones, int64 [D+1]; and the number of words of each text, int64 [D].
    """
    hashes, words = _word_hashes(texts)
    # Texts shorter than a shingle are padded with words of hash 0, so that every text with a word
    # has a shingle.
    filled = np.where(words > 0, np.maximum(words, ngram), 0)
    if not np.array_equal(filled, words):
        places = np.arange(len(hashes)) + np.repeat(np.cumsum(filled - words), words)
        places -= np.repeat(filled - words, words)
        padded = np.zeros(int(filled.sum()), dtype=np.uint64)
        padded[places] = hashes
        hashes = padded
    joined = hashes.copy()
    for step in range(1, ngram):
        joined[:-step] += hashes[step:] * np.uint64(pow(_NEXT_WORD, step, 1 << 64))
    counts = np.where(words > 0, filled - ngram + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    # No shingle begins at the last n - 1 words of a text.
    begins = np.ones(len(joined), dtype=np.bool_)
    ends = np.cumsum(filled)[words > 0]
    for step in range(1, ngram):
        begins[ends - step] = False
    return mixed(joined[begins]), offsets, words


def _word_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the word hashes of all texts, uint64 [W], and the words per text, int64 [D].

    A long text is processed in parts of `WINDOW` characters; a word at a cut counts as two.
    """
    hashes: list[NDArray[np.uint64]] = []
    words = np.zeros(len(texts), dtype=np.int64)
    group: list[str] = []
    room, first = WINDOW, 0
    for number, text in enumerate(texts):
        if len(text) > room:
            hashes.append(_group_hashes(group, words[first:number]))
            group, room, first = [], WINDOW, number
        if len(text) > WINDOW:
            for begin in range(0, len(text), WINDOW):
                piece = np.zeros(1, dtype=np.int64)
                hashes.append(_group_hashes([text[begin : begin + WINDOW]], piece))
                words[number] += piece[0]
            first = number + 1
        else:
            group.append(text)
            room -= len(text) + 1
    hashes.append(_group_hashes(group, words[first:]))
    return np.concatenate(hashes), words


def _group_hashes(texts: Sequence[str], words: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the word hashes of texts of at most `WINDOW` characters; fill in `words` per text."""
    powers, inverses = _powers()
    codes = np.frombuffer("\n".join(texts).encode("utf-32-le"), dtype="<u4")
    characters = _characters().take(codes, mode="clip")
    inside = characters != 0
    starts = inside.copy()
    starts[1:] &= ~inside[:-1]
    alone = characters >= _ALONE
    if alone.any():
        starts |= alone
        starts[1:] |= alone[:-1] & inside[1:]
    begins = np.flatnonzero(starts)
    bounds = np.cumsum([0, *(len(text) + 1 for text in texts)])
    words[:] = np.diff(np.searchsorted(begins, bounds))
    # The polynomial hash of a run of characters is the difference of two prefix sums; separators
    # add 0. The inverse power makes it independent of the position of the run.
    prefix = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(characters * powers[: len(codes)], out=prefix[1:])
    sums = prefix[begins]
    sums[:-1] = sums[1:] - sums[:-1]
    sums[-1:] = prefix[-1] - sums[-1:]
    return mixed(sums * inverses[begins])


@lru_cache(maxsize=1)
def _characters() -> NDArray[np.uint32]:
    """Return for every code point its value in a word, or 0 if it separates words, uint32 [N]."""
    table = [0] * (_CODES + 1)
    for code in range(_CODES):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            cjk = any(first <= code <= last for first, last in CJK)
            table[code] = code | int(_ALONE) if cjk else ord(character.lower()[0])
    return np.array(table, dtype=np.uint32)


@lru_cache(maxsize=1)
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the powers of the base and of its inverse modulo 2^64, each uint64 [WINDOW+1]."""
    rows = np.ones((2, WINDOW + 1), dtype=np.uint64)
    rows[0, 1:] = _BASE
    rows[1, 1:] = pow(_BASE, -1, 1 << 64)
    np.cumprod(rows, axis=1, out=rows)
    return rows[0], rows[1]
