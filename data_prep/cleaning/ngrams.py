"""Repeated n-grams of a text, counted over the keys of its words."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.cleaning.words import BASE


@dataclass(frozen=True)
class Repeats:
    """The n-grams of one length that occur twice or more in a text of W words."""

    n: int
    """Words of an n-gram."""
    lengths: NDArray[np.int64]
    """Characters of each word of the text, int64 [W]."""
    places: NDArray[np.int64]
    """Index of the first word of each copy, int64 [P], P > 0. The copies of one n-gram are
    consecutive, in the order of the text."""
    first: NDArray[np.bool_]
    """Whether a copy is the first one of its n-gram, bool [P]."""

    def top_share(self) -> float:
        """Return the share of characters in copies of the most frequent n-gram.

        Among several equally frequent n-grams, the longest counts. Copies that overlap count in
        full, but the share is at most 1.
        """
        begins = np.flatnonzero(self.first)
        counts = np.diff(begins, append=len(self.places))
        count = int(counts.max())
        words = self.places[begins[counts == count], None] + np.arange(self.n)
        longest = int(self.lengths[words].sum(axis=1).max())
        return min(count * longest / int(self.lengths.sum()), 1.0)

    def duplicate_share(self) -> float:
        """Return the share of characters in second and later copies, each counted once."""
        later = self.places[~self.first]
        change = np.zeros(len(self.lengths) + 1, dtype=np.int32)
        change[later] += 1
        change[later + self.n] -= 1
        covered = np.cumsum(change[:-1]) > 0
        return int(self.lengths[covered].sum()) / int(self.lengths.sum())


def repeated_ngrams(
    keys: NDArray[np.uint64], lengths: NDArray[np.int64], smallest: int, largest: int
) -> Iterator[tuple[int, Repeats]]:
    """Yield the repeated n-grams for each n from `smallest` to `largest`; stop when none are left.

    An n-gram that occurs twice begins with an (n-1)-gram that occurs twice. So each round checks
    only the places that remain from the previous round. In ordinary text these are soon few.

    Args:
        keys: a key of each word, uint64 [W].
        lengths: characters of each word, int64 [W].
        smallest: minimum n, at least 1.
        largest: maximum n.
    """
    places = np.arange(len(keys))
    grams = np.zeros(len(keys), dtype=np.uint64)
    for n in range(1, largest + 1):
        fitting = np.searchsorted(places, len(keys) - n, side="right")
        places = places[:fitting]
        grams = grams[:fitting] * BASE + keys[places + n - 1]
        if n < smallest:
            continue
        order, first = _group(grams)
        if not len(order):
            return
        yield n, Repeats(n, lengths, places[order], first)
        kept = np.sort(order)
        places, grams = places[kept], grams[kept]


def _group(grams: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the indices of keys that occur at least twice, grouped by key; and which are first.

    The index of each key replaces its lower bits. Then one plain sort groups the copies in their
    order, which is much faster than an argsort. Two keys that differ only in those bits count as
    equal; the probability is 2**-44 per pair in a text of a million words.
    """
    low = np.uint64((1 << len(grams).bit_length()) - 1)
    ordered = (grams & ~low) | np.arange(len(grams), dtype=np.uint64)
    ordered.sort()
    copy = np.zeros(len(grams) + 1, dtype=np.bool_)  # equal to the previous key
    np.less_equal(ordered[1:] ^ ordered[:-1], low, out=copy[1 : max(len(grams), 1)])
    repeated = copy[:-1] | copy[1:]
    return (ordered[repeated] & low).astype(np.int64), ~copy[:-1][repeated]
