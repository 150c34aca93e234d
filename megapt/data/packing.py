"""Packs examples into rows of a fixed length: first fit over a bounded number of open rows.

First fit (Johnson 1973) needs no sorting and no look-ahead, so the place of an example depends
only on the examples before it.
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
    """Positions of a row."""
    count: int
    """Least number of rows, at least 1; missing ones are filled with padding, for fixed shapes."""
    open: int
    """Number of open rows that an example may go into."""


def first_fit(lengths: Iterable[int], row_length: int, open_rows: int) -> tuple[Ints, Ints]:
    """Assign each example, in order, to the first open row in which it fits, or to a new row.

    The last `open_rows` rows that are not full are open.

    Args:
        lengths: positions of each example, at least 1.
        row_length: positions of a row.
        open_rows: at least 1.

    Returns:
        The row of each example and its first position in that row, both int64 [examples].

    Raises:
        ValueError: if an example is longer than a row.
    """
    if open_rows < 1:
        raise ValueError(f"first fit needs at least 1 open row, not {open_rows}")
    rows: list[int] = []
    starts: list[int] = []
    # The open rows, oldest first, and the occupied positions in each.
    numbers: list[int] = []
    used: list[int] = []
    count = 0
    for example, length in enumerate(lengths):
        room = row_length - length
        if room < 0:
            raise ValueError(
                f"example {example} takes {length} positions, {-room} more than the {row_length} "
                "of a row"
            )
        i = 0
        while i < len(used) and used[i] > room:
            i += 1
        if i == len(used):
            numbers.append(count)
            used.append(0)
            count += 1
        rows.append(numbers[i])
        starts.append(used[i])
        used[i] += length
        if used[i] == row_length:
            del numbers[i], used[i]
        elif len(used) > open_rows:
            del numbers[0], used[0]
    return np.array(rows, dtype=np.int64), np.array(starts, dtype=np.int64)


def filler(length: int, pad: int, bidirectional: bool) -> Example:
    """Return an example of pad tokens without targets, in narrow types as the other examples."""
    tokens: Ints = np.full(length, pad, dtype=np.min_scalar_type(pad))
    zeros: Ints = np.zeros(length, dtype=np.uint8)
    visible: Bools = np.full(length, bidirectional)
    return Example(tokens, zeros, zeros, visible, targets={})


def pack_into_rows(
    examples: Sequence[Example], rows: Rows, pad: int, bidirectional: bool
) -> list[Example]:
    """Return the examples row by row, with a filler at the end of each row that is not full.

    With fillers, every query has a key, and no mean is over zero positions.

    Args:
        examples: in the order in which they are packed.
        rows: shape of the rows.
        pad: token id of the fillers.
        bidirectional: whether all keys of a filler are visible, as in the examples.

    Raises:
        ValueError: if an example is longer than a row.
    """
    lengths = [len(example) for example in examples]
    numbers, _ = first_fit(lengths, rows.length, rows.open)
    count = max(rows.count, int(numbers.max(initial=0)) + 1)
    packed: list[list[Example]] = [[] for _ in range(count)]
    free = [rows.length] * count
    for number, example, length in zip(numbers.tolist(), examples, lengths, strict=True):
        packed[number].append(example)
        free[number] -= length
    for row, rest in zip(packed, free, strict=True):
        if rest:
            row.append(filler(rest, pad, bidirectional))
    return [example for row in packed for example in row]
