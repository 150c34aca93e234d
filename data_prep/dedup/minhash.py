"""MinHash signatures of sets of shingles.

Classic MinHash (Broder, 1997) hashes every shingle once per slot. Fast Similarity Sketching
(Dahlgaard, Knudsen, Thorup, FOCS 2017) hashes every shingle once per round, to one slot and a
value. A slot keeps the smallest value of the first round that reached it. The probability that a
slot of two sets is equal is still their Jaccard similarity, and the slots concentrate like
independent ones, but a long text needs only one or two rounds. In short texts, slots may be
empty after `ROUNDS` rounds; these are filled as in classic MinHash.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.settings import NearSettings
from data_prep.dedup.shingles import WINDOW, mixed, shingle_hashes

ROUNDS = 10
NO_SIGNATURE = 0xFFFF
"""The value of all slots of a text that is too short to be a near-duplicate."""

_EMPTY = np.uint32(0xFFFFFFFF)
_GROUP_TEXTS = 1024
_GROUP_SLOTS = 1 << 14
_KEY = np.uint64(0xA0761D6478BD642F)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def signatures(texts: Sequence[str], settings: NearSettings) -> NDArray[np.uint16]:
    """Return the MinHash signatures of D texts.

    Args:
        texts: the texts; UTF-8 must be able to encode them.
        settings: shingle length, slots, seed and minimum length.

    Returns:
        The low 16 bits of the smallest hash of each slot (b-bit MinHash, Li and König, 2010),
        uint16 [D, permutations]. Two different hashes have equal low bits with a probability of
        1/65,536. For a text of fewer than `min_words` words, all values are `NO_SIGNATURE`.
    """
    out = np.empty((len(texts), settings.permutations), dtype=np.uint16)
    for begin, end in _groups(texts):
        hashes, offsets, words = shingle_hashes(texts[begin:end], settings.ngram)
        out[begin:end] = sketch(hashes, offsets, settings.permutations, settings.seed)
        out[begin:end][words < settings.min_words] = NO_SIGNATURE
    return out


def sketch(
    hashes: NDArray[np.uint64], offsets: NDArray[np.int64], slots: int, seed: int
) -> NDArray[np.uint32]:
    """Sketch D sets of hashed elements.

    Args:
        hashes: the elements, one set after another, uint64 [S]; repeats have no effect.
        offsets: begin of each set and end of the last one, int64 [D+1].
        slots: number of slots of a sketch.
        seed: seed of the hash functions.

    Returns:
        The sketches, uint32 [D, slots]; all values of an empty set are 0xffffffff.
    """
    counts = np.diff(offsets)
    out = np.full((len(counts), slots), _EMPTY, dtype=np.uint32)
    flat = out.reshape(-1)
    keys = mixed(np.arange(1, ROUNDS + slots + 1, dtype=np.uint64) * _KEY)
    keys = mixed(keys ^ np.uint64(seed))
    filled = np.zeros(out.shape, dtype=np.bool_)
    sets, live = np.repeat(np.arange(len(counts)), counts), hashes
    for key in keys[:ROUNDS]:
        for begin in range(0, len(live), WINDOW):
            part = slice(begin, begin + WINDOW)
            values = mixed(live[part] ^ key)
            places = ((values >> _HALF) * np.uint64(slots) >> _HALF).astype(np.int64)
            places += sets[part] * slots
            # A slot that an earlier round filled does not change.
            low = np.where(filled.reshape(-1)[places], _EMPTY, values.astype(np.uint32))
            np.minimum.at(flat, places, low)
        filled = out != _EMPTY
        unfinished = np.flatnonzero(~filled.all(axis=1)[sets])
        sets, live = sets[unfinished], live[unfinished]
        if not len(live):
            return out
    _fill(out, sets, live, keys[ROUNDS:])
    return out


def _fill(
    out: NDArray[np.uint32],
    sets: NDArray[np.int64],
    elements: NDArray[np.uint64],
    keys: NDArray[np.uint64],
) -> None:
    """Fill the empty slots of sets with the smallest hash of all elements, with a key per slot."""
    slots = len(keys)
    counts = np.bincount(sets, minlength=len(out))
    if counts.max() > 2 * slots:
        # So many different elements would leave no slot empty, so there are repeats: remove them.
        order = np.lexsort((elements, sets))
        sets, elements = sets[order], elements[order]
        new = np.ones(len(sets), dtype=np.bool_)
        new[1:] = (sets[1:] != sets[:-1]) | (elements[1:] != elements[:-1])
        sets, elements = sets[new], elements[new]
        counts = np.bincount(sets, minlength=len(out))
    offsets = np.cumsum(counts) - counts
    empty = np.nonzero((out == _EMPTY) & (counts > 0)[:, None])
    for begin in range(0, len(empty[0]), _GROUP_SLOTS):
        rows, columns = (side[begin : begin + _GROUP_SLOTS] for side in empty)
        lengths = counts[rows]
        begins = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(offsets[rows] - begins, lengths)
        values = mixed(elements[places] ^ np.repeat(keys[columns], lengths)) & _LOW
        out[rows, columns] = np.minimum.reduceat(values, begins)


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield ranges of texts of about `WINDOW` characters and at most `_GROUP_TEXTS` texts."""
    begin, characters = 0, 0
    for number, text in enumerate(texts):
        characters += len(text) + 1
        if characters > WINDOW or number - begin == _GROUP_TEXTS:
            if number > begin:
                yield begin, number
            begin, characters = number, len(text) + 1
    if begin < len(texts):
        yield begin, len(texts)
