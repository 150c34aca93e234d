"""Texts of different lengths, end to end: array operations on all of them at once."""

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
    """The pieces of a window end to end, T tokens in total."""

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
        """Return `pieces`, at least one, end to end."""
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
    """Return the place where each run begins, for runs of these sizes end to end, int64 [runs]."""
    begins: Ints = sizes.cumsum() - sizes
    return begins


def offsets(sizes: Ints) -> Ints:
    """Return the offset of every item in its run, 0 to size - 1, int64 [sum of sizes]."""
    inside: Ints = np.arange(int(sizes.sum())) - firsts(sizes).repeat(sizes)
    return inside


def split(values: Ints, sizes: Ints) -> list[Ints]:
    """Return the runs of `values` as views, [size] each."""
    borders = np.concatenate([[0], sizes.cumsum()]).tolist()
    return [values[start:stop] for start, stop in pairwise(borders)]


def shuffled(sizes: Ints, rng: CounterRng) -> Ints:
    """Return the places 0 to sum - 1 with each run in random order, int64 [sum of sizes].

    One sort orders all runs: the high bits of its keys are the number of the run, the low bits a
    draw. With at most 2^24 runs, 40 bits remain for the draw. So in a run of n items, two draws are
    equal with a probability of about n^2 / 2^41; these items keep their order.
    """
    run = np.arange(len(sizes), dtype=np.uint64).repeat(sizes)
    order: Ints = np.argsort((run << 40) | (rng.bits(len(run)) >> 24), kind="stable")
    return order


def picked(sizes: Ints, counts: Ints, rng: CounterRng) -> Ints:
    """Return the places of `counts` random items of each run, in random order."""
    places: Ints = shuffled(sizes, rng)[offsets(sizes) < counts.repeat(sizes)]
    return places


def mask_randomly(tokens: Ints, rate: float, mask: int, rng: CounterRng) -> Ints:
    """Return a text with `mask` in place of `rate` of its tokens, rounded, at least one."""
    count = max(1, round(rate * len(tokens)))
    chosen = choose(np.array([len(tokens)]), np.array([count]), rng)
    masked: Ints = np.where(chosen, mask, tokens)
    return masked


def choose(sizes: Ints, counts: Ints, rng: CounterRng) -> Bools:
    """Choose `counts` items of each run; all subsets are equally likely.

    Args:
        sizes: items of each run, int64 [runs].
        counts: number of items to choose, 0 to size, int64 [runs].
        rng: random numbers of the window.

    Returns:
        The chosen items, bool [sum of sizes].
    """
    chosen = np.zeros(int(sizes.sum()), dtype=np.bool_)
    chosen[picked(sizes, counts, rng)] = True
    return chosen
