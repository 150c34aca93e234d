"""Packs examples into rows of a fixed length: first fit over a bounded number of open rows.

First fit (Johnson 1973) needs no sorting and never looks ahead of the example at hand, so where an
example goes depends on those before it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from megapt.data.example import Bools, Example, Ints


@dataclass(frozen=True)
class Rows:
    """The rows that examples are packed into."""

    length: int
    """Places of a row."""
    count: int
    """At least so many rows are made, and 1, if need be empty ones: shapes stay fixed."""
    open: int
    """Rows among which an example finds its place."""


def first_fit(lengths: Iterable[int], row_length: int, open_rows: int) -> tuple[Ints, Ints]:
    """Give each example, in order, the first open row in which it fits, or else a new row.

    The last `open_rows` rows that are not full are open.

    Args:
        lengths: positions of each example, at least 1.
        row_length: places of a row.
        open_rows: at least 1.

    Returns:
        For each example its row and its first place in that row, both int64 [examples].

    Raises:
        ValueError: if an example is longer than a row.
    """
    if open_rows < 1:
        raise ValueError(f"first fit needs at least 1 open row, not {open_rows}")
    rows: list[int] = []
    starts: list[int] = []
    # The open rows, oldest first, and the places taken in them.
    numbers: list[int] = []
    taken: list[int] = []
    made = 0
    for example, length in enumerate(lengths):
        room = row_length - length
        if room < 0:
            raise ValueError(
                f"example {example} takes {length} positions, {-room} more than the {row_length} "
                "of a row"
            )
        i = 0
        while i < len(taken) and taken[i] > room:
            i += 1
        if i == len(taken):
            numbers.append(made)
            taken.append(0)
            made += 1
        rows.append(numbers[i])
        starts.append(taken[i])
        taken[i] += length
        if taken[i] == row_length:
            del numbers[i], taken[i]
        elif len(taken) > open_rows:
            del numbers[0], taken[0]
    return np.array(rows, dtype=np.int64), np.array(starts, dtype=np.int64)


def filler(length: int, pad: int, bidirectional: bool) -> Example:
    """Return an example of pad tokens that predicts nothing, as narrow as what it stands beside."""
    tokens: Ints = np.full(length, pad, dtype=np.min_scalar_type(pad))
    zeros: Ints = np.zeros(length, dtype=np.uint8)
    visible: Bools = np.full(length, bidirectional)
    return Example(tokens, zeros, zeros, visible, targets={})


def lay_in_rows(
    examples: Sequence[Example], rows: Rows, pad: int, bidirectional: bool
) -> list[Example]:
    """Return the examples row by row, with a filler for what is left of each row.

    So no query of a row is without a key, and no mean is of nothing.

    Args:
        examples: in the order in which they are packed.
        rows: that they are packed into.
        pad: id of the token of the fillers.
        bidirectional: whether all keys of a filler are visible, as those of the examples are.

    Raises:
        ValueError: if an example is longer than a row.
    """
    lengths = [len(example) for example in examples]
    numbers, _ = first_fit(lengths, rows.length, rows.open)
    count = max(rows.count, int(numbers.max(initial=0)) + 1)
    laid: list[list[Example]] = [[] for _ in range(count)]
    left = [rows.length] * count
    for number, example, length in zip(numbers.tolist(), examples, lengths, strict=True):
        laid[number].append(example)
        left[number] -= length
    for row, rest in zip(laid, left, strict=True):
        if rest:
            row.append(filler(rest, pad, bidirectional))
    return [example for row in laid for example in row]
