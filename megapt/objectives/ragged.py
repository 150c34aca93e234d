"""Texts of unequal length end to end: arithmetic on all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from megapt.data import CounterRng, Piece
from megapt.data.example import Bools, Ints


@dataclass(frozen=True)
class Texts:
    """The pieces of a window end to end, T tokens in all."""

    tokens: Ints
    """Any integer type [T]."""
    word_starts: Bools
    """bool [T]."""
    sentence_starts: Bools
    """bool [T]."""
    sizes: Ints
    """Tokens of each text, at least 1, int64 [texts]."""

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Texts:
        """Lay out `pieces`, at least one."""
        return cls(
            np.concatenate([piece.tokens for piece in pieces]),
            np.concatenate([piece.word_starts for piece in pieces]),
            np.concatenate([piece.sentence_starts for piece in pieces]),
            np.fromiter((len(piece.tokens) for piece in pieces), np.int64, len(pieces)),
        )

    @cached_property
    def firsts(self) -> Ints:
        """Place of the first token of each text, int64 [texts]."""
        return firsts(self.sizes)


def firsts(sizes: Ints) -> Ints:
    """Return where each of some runs of these sizes begins, int64 [runs]."""
    begins: Ints = sizes.cumsum() - sizes
    return begins


def offsets(sizes: Ints) -> Ints:
    """Return the place of every item in its own run: 0..size-1 of each, int64 [sum of sizes]."""
    inside: Ints = np.arange(int(sizes.sum())) - firsts(sizes).repeat(sizes)
    return inside


def split(values: Ints, sizes: Ints) -> list[Ints]:
    """Return the runs of `values` as views, [size] each."""
    borders = np.concatenate([[0], sizes.cumsum()]).tolist()
    return [values[start:stop] for start, stop in pairwise(borders)]


def shuffled(sizes: Ints, rng: CounterRng) -> Ints:
    """Return the places 0..sum-1 with each run in random order, int64 [sum of sizes].

    One sort for all runs: the number of the run stands above the bits of the draw. With 2^24 runs
    at most 40 bits are left, so two items of a run of n draw alike with n^2 / 2^41 chance, and keep
    their order then.
    """
    run = np.arange(len(sizes), dtype=np.uint64).repeat(sizes)
    order: Ints = np.argsort((run << 40) | (rng.bits(len(run)) >> 24), kind="stable")
    return order


def picked(sizes: Ints, counts: Ints, rng: CounterRng) -> Ints:
    """Return the places of `counts` items of each run, chosen at random and in random order."""
    places: Ints = shuffled(sizes, rng)[offsets(sizes) < counts.repeat(sizes)]
    return places


def some_masked(tokens: Ints, rate: float, mask: int, rng: CounterRng) -> Ints:
    """Return a text with `mask` in the place of `rate` of its tokens, rounded, at least one."""
    count = max(1, round(rate * len(tokens)))
    chosen = choose(np.array([len(tokens)]), np.array([count]), rng)
    masked: Ints = np.where(chosen, mask, tokens)
    return masked


def choose(sizes: Ints, counts: Ints, rng: CounterRng) -> Bools:
    """Choose `counts` items of each run, every subset being equally likely.

    Args:
        sizes: items of each run, int64 [runs].
        counts: how many of them, 0 to size, int64 [runs].

    Returns:
        The chosen items, bool [sum of sizes].
    """
    chosen = np.zeros(int(sizes.sum()), dtype=np.bool_)
    chosen[picked(sizes, counts, rng)] = True
    return chosen
