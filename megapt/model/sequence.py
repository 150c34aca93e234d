"""Sequence parallelism: neighboring ranks share the positions of one micro-batch.

DeepSpeed Ulysses (Jacobs et al. 2023): each rank runs embeddings, norms and linear layers on its
slice of the positions. For attention the ranks exchange slices of all heads for all positions of
some heads, and back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from megapt.data.targets import HeadTargets
from megapt.distributed.ranks import Ranks
from megapt.distributed.sequence import Attend, exchanged, sequence_process_group


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that hold the same micro-batch; by default a rank alone, which divides nothing.

    All slices are equally long: the last ones are filled up with zeros, which nothing reads.
    """

    group: Any = None
    """Process group of these ranks; None for one alone."""
    rank: int = 0
    """Of this rank in the group."""
    size: int = 1

    @classmethod
    def of(cls, ranks: Ranks) -> SequenceGroup:
        """Return the ranks that share positions with this one. All ranks call it."""
        if ranks.sequence_world == 1:
            return cls()
        return cls(sequence_process_group(ranks), ranks.sequence_rank, ranks.sequence_world)

    def exchanged(self, attend: Attend) -> Attend:
        """Return attention on the slice of this rank, from one on all positions of some heads."""
        return exchanged(attend, self.group)

    def filled(self, values: Tensor) -> Tensor:
        """Return `values` [N, ...] with zeros at the end, so that the group divides them."""
        rest = -len(values) % self.size
        return functional.pad(values, (0, 0) * (values.ndim - 1) + (0, rest)) if rest else values

    def slice(self, values: Tensor) -> Tensor:
        """Return the slice of this rank, [ceil(N / size), ...], of `values` [N, ...]."""
        return values if self.size == 1 else self.filled(values).chunk(self.size)[self.rank]

    def join(self, states: Tensor, count: int) -> Tensor:
        """Return the states of all positions, [count, ...], from those of each rank's slice.

        In the backward pass each rank gets the sum of what all ranks want of its slice, as fits a
        loss that is the sum of theirs.
        """
        if self.size == 1:
            return states
        whole: Tensor = _Join.apply(states, self)  # type: ignore[no-untyped-call]
        return whole[:count]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the ranks; no gradient passes."""
        if self.size > 1:
            torch.distributed.all_reduce(values, group=self.group)
        return values

    def share(self, asked: HeadTargets) -> HeadTargets:
        """Return the part of the targets that this rank answers."""
        if self.size == 1:
            return asked
        first, stop = (len(asked) * rank // self.size for rank in (self.rank, self.rank + 1))
        fields = ("places", "labels", "weights", "draws")
        parts = {
            name: value[first:stop]
            for name in fields
            if (value := getattr(asked, name)) is not None
        }
        return replace(asked, **parts)


class _Join(torch.autograd.Function):
    """Slices of all ranks end to end; see `SequenceGroup.join`."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, sequence: SequenceGroup) -> Tensor:
        ctx.sequence = sequence
        whole = mine.new_empty(len(mine) * sequence.size, *mine.shape[1:])
        torch.distributed.all_gather_into_tensor(whole, mine.contiguous(), group=sequence.group)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        mine = slope.new_empty(len(slope) // ctx.sequence.size, *slope.shape[1:])
        torch.distributed.reduce_scatter_tensor(mine, slope.contiguous(), group=ctx.sequence.group)
        return mine, None
