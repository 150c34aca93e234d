"""Batches: the examples of some windows, end to end without padding or in rows of one length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megapt.data.counts import Counts, attended_pairs
from megapt.data.example import Attention, Bools, Example, Ints, Targets, asking_member
from megapt.data.packing import Rows, filler, lay_in_rows
from megapt.data.targets import (
    HeadTargets,
    PackedTargets,
    Unsigned,
    join_targets,
    joined,
    moved,
    narrow,
    widened,
)


@dataclass(frozen=True)
class Batch:
    """Examples ready for the model, N positions in all.

    The linear layers run on the positions as they stand, end to end. In rows, what is left of a
    row is an example of its own, a filler of pad tokens that predicts nothing.
    """

    tokens: Tensor
    """Input ids, int64 [N]."""
    positions: Tensor
    """Position ids, int64 [N]."""
    segments: Tensor
    """Segment ids, int64 [N]."""
    visible: Tensor
    """Keys that all queries of their example may see, bool [N]."""
    starts: Tensor
    """First place of each example, and N, int64 [examples + 1]."""
    groups: tuple[Tensor, ...]
    """Examples of like length side by side: their places, int64 [examples, longest]; N where a
    shorter example has ended. The longest come first."""
    targets: dict[str, HeadTargets]
    """What each head is asked."""
    counts: Counts
    attention: Attention
    """`causal` if no key is visible, `bidirectional` if all are, else `prefix`."""
    row_length: int = 0
    """N is a multiple of it and no example crosses a multiple; 0 if there are no rows."""
    key: int = 0
    """Number of the first window in the run; keys the dropout of this batch."""

    def to(self, device: torch.device) -> Batch:
        """Return a copy on `device`."""
        return replace(
            self,
            tokens=moved(self.tokens, device),
            positions=moved(self.positions, device),
            segments=moved(self.segments, device),
            visible=moved(self.visible, device),
            starts=moved(self.starts, device),
            groups=tuple(moved(group, device) for group in self.groups),
            targets={head: asked.to(device) for head, asked in self.targets.items()},
        )


@dataclass(frozen=True)
class PackedBatch:
    """A `Batch` in the narrowest types that hold it, to cross from one process to another.

    Arrays rather than tensors: they are pickled as they are, and need no shared memory.
    """

    tokens: Unsigned
    """uint16 or uint32 [N]."""
    positions: Unsigned
    """uint16 or uint32 [N]."""
    segments: NDArray[np.uint8]
    visible: Bools
    starts: NDArray[np.int32]
    """[examples + 1]."""
    targets: dict[str, PackedTargets]
    counts: Counts
    row_length: int = 0
    key: int = 0

    def widen(self) -> Batch:
        """Return the batch that the model reads."""
        groups = group_examples(self.starts.astype(np.int64))
        shown: Attention = "prefix" if self.visible.any() else "causal"
        return Batch(
            tokens=widened(self.tokens),
            positions=widened(self.positions),
            segments=widened(self.segments),
            visible=torch.from_numpy(self.visible),
            starts=widened(self.starts),
            groups=tuple(map(torch.from_numpy, groups)),
            targets={head: asked.widen() for head, asked in self.targets.items()},
            counts=self.counts,
            attention="bidirectional" if self.visible.all() else shown,
            row_length=self.row_length,
            key=self.key,
        )


_SHORTEST_IN_GROUP = 0.75
"""An example shorter than this share of the longest of its group begins a new group."""


def group_examples(starts: Ints) -> list[Ints]:
    """Gather examples of like length, so that attention computes little but what its mask allows.

    Args:
        starts: first place of each example, and the end, int64 [examples + 1].

    Returns:
        For each group the places of its examples, int64 [examples, longest]; the end itself
        stands for nothing.
    """
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order].tolist()
    borders = [0]
    for i, length in enumerate(falling):
        if length < _SHORTEST_IN_GROUP * falling[borders[-1]]:
            borders.append(i)
    firsts, ends = starts[:-1][order, None], starts[1:][order, None]
    offsets = np.arange(falling[0])
    laid = []
    for first, stop in zip(borders, [*borders[1:], len(falling)], strict=True):
        places = firsts[first:stop] + offsets[: falling[first]]
        places[places >= ends[first:stop]] = starts[-1]
        laid.append(places)
    return laid


def _asking_windows(examples: Sequence[Example], per_window: Sequence[int]) -> Counter[str]:
    """Return the number of windows that ask something of each head, or member of a mixture."""
    asking: Counter[str] = Counter()
    remaining = iter(examples)
    for count in per_window:
        asking.update(
            {
                asking_member(head)
                for example in islice(remaining, count)
                for head in example.targets
            }
        )
    return asking


def collate(
    examples: Sequence[Example],
    *,
    pad: int,
    heads: Iterable[str] = (),
    token_heads: Iterable[str] = (),
    raw_tokens: int = 0,
    per_window: Sequence[int] = (),
    key: int = 0,
    rows: Rows | None = None,
) -> PackedBatch:
    """Lay examples end to end in order, or pack them into rows.

    Args:
        examples: of any number of windows. Without any, and without rows, the batch holds one
            position that nothing reads, because all ranks must run the model together.
        pad: id of the token at that position, and at what is left of the rows.
        heads: names of the heads, so that every batch has the same keys.
        token_heads: those of them that predict over the vocabulary.
        raw_tokens: tokens of text that the examples were made of.
        per_window: how many of the examples are of each window; empty if nobody asks.
        key: see `Batch.key`.
        rows: that the examples are packed into, by first fit.

    Raises:
        ValueError: if an example is longer than a row.
    """
    lengths = np.fromiter(map(len, examples), np.int64, len(examples))
    visible = np.concatenate([np.zeros(0, dtype=np.bool_), *(e.visible for e in examples)])
    pairs = attended_pairs(lengths, visible)
    laid = examples or [filler(1, pad, bidirectional=True)]
    if rows is not None:
        laid = lay_in_rows(examples, rows, pad, bidirectional=bool(visible.all()))
    if laid is not examples:
        lengths = np.fromiter(map(len, laid), np.int64, len(laid))
        visible = np.concatenate([example.visible for example in laid])
    starts: Ints = np.cumsum(np.concatenate([[0], lengths]))
    asked: dict[str, tuple[list[int], list[Targets]]] = {head: ([], []) for head in heads}
    for start, example in zip(starts.tolist(), laid, strict=False):
        for head, target in example.targets.items():
            asked[head][0].append(start)
            asked[head][1].append(target)
    windows = _asking_windows(examples, per_window)
    targets = {
        head: join_targets(np.array(places, dtype=np.int64), found, windows[asking_member(head)])
        for head, (places, found) in asked.items()
    }
    positions = sum(map(len, examples))
    return PackedBatch(
        tokens=narrow(joined([example.tokens for example in laid]), np.uint16, np.uint32),
        positions=narrow(joined([example.positions for example in laid]), np.uint16, np.uint32),
        segments=narrow(joined([example.segments for example in laid]), np.uint8),
        visible=visible,
        starts=starts.astype(np.int32),
        targets=targets,
        counts=Counts(
            raw_tokens=raw_tokens,
            positions=positions,
            targets=sum(len(target.labels) for target in targets.values()),
            token_targets=sum(len(targets[head].labels) for head in token_heads),
            pairs=pairs,
            slots=positions if rows is None else int(starts[-1]),
        ),
        row_length=0 if rows is None else rows.length,
        key=key,
    )
