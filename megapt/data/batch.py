"""Batches: the examples of some windows, concatenated without padding or packed into rows."""

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
from megapt.data.example import Attention, Bools, Example, Ints, Targets, member_of
from megapt.data.packing import Rows, filler, pack_into_rows
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

    The linear layers run on all positions, concatenated. In rows, the rest of a row is a separate
    example, a filler of pad tokens without targets.
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
    """First position of each example, and N, int64 [examples + 1]."""
    groups: tuple[Tensor, ...]
    """Groups of examples of similar length, the longest first: indices of their positions in the
    batch, int64 [examples, longest]; N after the end of a shorter example."""
    targets: dict[str, HeadTargets]
    """Name of a head -> its targets."""
    counts: Counts
    attention: Attention
    """`causal` if no key is visible, `bidirectional` if all are, else `prefix`."""
    row_length: int = 0
    """Positions of a row; N is a multiple of it. 0 if there are no rows."""
    key: int = 0
    """Smallest window number in the batch; it keys the dropout."""

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
            targets={head: targets.to(device) for head, targets in self.targets.items()},
        )


@dataclass(frozen=True)
class PackedBatch:
    """A `Batch` in the narrowest types that hold it, for transfer between processes.

    It holds arrays instead of tensors: they are pickled directly and need no shared memory.
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
        """Return the batch in the types that the model reads."""
        groups = group_examples(self.starts.astype(np.int64))
        attention: Attention = "prefix" if self.visible.any() else "causal"
        return Batch(
            tokens=widened(self.tokens),
            positions=widened(self.positions),
            segments=widened(self.segments),
            visible=torch.from_numpy(self.visible),
            starts=widened(self.starts),
            groups=tuple(map(torch.from_numpy, groups)),
            targets={head: targets.widen() for head, targets in self.targets.items()},
            counts=self.counts,
            attention="bidirectional" if self.visible.all() else attention,
            row_length=self.row_length,
            key=self.key,
        )


_SHORTEST_IN_GROUP = 0.75
"""An example shorter than this fraction of the longest one in its group begins a new group."""


def group_examples(starts: Ints) -> list[Ints]:
    """Group examples of similar length, so that attention computes few masked pairs.

    Args:
        starts: first position of each example, and the end, int64 [examples + 1].

    Returns:
        For each group the positions of its examples, int64 [examples, longest]; shorter examples
        are padded with the end.
    """
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order].tolist()
    borders = [0]
    for i, length in enumerate(descending):
        if length < _SHORTEST_IN_GROUP * descending[borders[-1]]:
            borders.append(i)
    firsts, ends = starts[:-1][order, None], starts[1:][order, None]
    offsets = np.arange(descending[0])
    groups = []
    for first, stop in zip(borders, [*borders[1:], len(descending)], strict=True):
        positions = firsts[first:stop] + offsets[: descending[first]]
        positions[positions >= ends[first:stop]] = starts[-1]
        groups.append(positions)
    return groups


def _windows_with_targets(examples: Sequence[Example], per_window: Sequence[int]) -> Counter[str]:
    """Return for each head, or member of a mixture, the number of windows with targets for it."""
    counts: Counter[str] = Counter()
    remaining = iter(examples)
    for count in per_window:
        counts.update(
            {member_of(head) for example in islice(remaining, count) for head in example.targets}
        )
    return counts


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
    """Concatenate examples in order, or pack them into rows.

    Args:
        examples: the examples of any number of windows. Without examples and rows, the batch holds
            one position without targets, because all ranks must run the model together.
        pad: id of the pad token, used at that position and in fillers.
        heads: names of the heads, so that every batch has the same keys.
        token_heads: the heads that predict over the vocabulary.
        raw_tokens: tokens of text that the examples were made from.
        per_window: number of examples of each window; empty if `HeadTargets.windows` is not needed.
        key: see `Batch.key`.
        rows: shape of the rows, which are packed by first fit; None: no rows.

    Raises:
        ValueError: if an example is longer than a row.
    """
    lengths = np.fromiter(map(len, examples), np.int64, len(examples))
    visible = np.concatenate([np.zeros(0, dtype=np.bool_), *(e.visible for e in examples)])
    pairs = attended_pairs(lengths, visible)
    ordered = examples or [filler(1, pad, bidirectional=True)]
    if rows is not None:
        ordered = pack_into_rows(examples, rows, pad, bidirectional=bool(visible.all()))
    if ordered is not examples:
        lengths = np.fromiter(map(len, ordered), np.int64, len(ordered))
        visible = np.concatenate([example.visible for example in ordered])
    starts: Ints = np.cumsum(np.concatenate([[0], lengths]))
    by_head: dict[str, tuple[list[int], list[Targets]]] = {head: ([], []) for head in heads}
    for start, example in zip(starts.tolist(), ordered, strict=False):
        for head, target in example.targets.items():
            by_head[head][0].append(start)
            by_head[head][1].append(target)
    windows = _windows_with_targets(examples, per_window)
    targets = {
        head: join_targets(np.array(firsts, dtype=np.int64), parts, windows[member_of(head)])
        for head, (firsts, parts) in by_head.items()
    }
    positions = sum(map(len, examples))
    return PackedBatch(
        tokens=narrow(joined([example.tokens for example in ordered]), np.uint16, np.uint32),
        positions=narrow(joined([example.positions for example in ordered]), np.uint16, np.uint32),
        segments=narrow(joined([example.segments for example in ordered]), np.uint8),
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
