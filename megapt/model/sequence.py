"""Sequence parallelism: neighboring ranks share the positions of one micro-batch.

DeepSpeed Ulysses (Jacobs et al. 2023): each rank runs embeddings, norms and linear layers on its
slice of the positions. For attention, an all-to-all exchanges slices of all heads for all positions
of some heads, and a second one reverses the exchange.
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
from megapt.distributed.sequence import Attend, sequence_process_group, with_exchange


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that share the positions of a micro-batch; by default a single rank.

    All slices are equally long: zeros, which nothing reads, pad the last ones.
    """

    group: Any = None
    """Process group of these ranks; None for a single rank."""
    rank: int = 0
    """Index of this rank in the group."""
    size: int = 1
    """Number of ranks."""

    @classmethod
    def of(cls, ranks: Ranks) -> SequenceGroup:
        """Return the ranks that share positions with this one. All ranks must call it."""
        if ranks.sequence_world == 1:
            return cls()
        return cls(sequence_process_group(ranks), ranks.sequence_rank, ranks.sequence_world)

    def with_exchange(self, attend: Attend) -> Attend:
        """Return attention on this rank's slice; `attend` works on all positions of some heads."""
        return with_exchange(attend, self.group)

    def padded(self, values: Tensor) -> Tensor:
        """Return `values` [N, ...] zero-padded to a multiple of the group's size."""
        rest = -len(values) % self.size
        return functional.pad(values, (0, 0) * (values.ndim - 1) + (0, rest)) if rest else values

    def slice(self, values: Tensor) -> Tensor:
        """Return this rank's slice of `values` [N, ...], [ceil(N / size), ...]."""
        return values if self.size == 1 else self.padded(values).chunk(self.size)[self.rank]

    def join(self, states: Tensor, count: int) -> Tensor:
        """Return the states of all positions, [count, ...], from those of each rank's slice.

        In the backward pass each rank receives the sum over all ranks of the gradients of its
        slice, since the loss is the sum of the losses of all ranks.
        """
        if self.size == 1:
            return states
        whole: Tensor = _Join.apply(states, self)  # type: ignore[no-untyped-call]
        return whole[:count]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the ranks, in place; not differentiable."""
        if self.size > 1:
            torch.distributed.all_reduce(values, group=self.group)
        return values

    def share(self, targets: HeadTargets) -> HeadTargets:
        """Return the share of the targets that this rank computes."""
        if self.size == 1:
            return targets
        first, stop = (len(targets) * rank // self.size for rank in (self.rank, self.rank + 1))
        fields = ("places", "labels", "weights", "draws")
        parts = {
            name: value[first:stop]
            for name in fields
            if (value := getattr(targets, name)) is not None
        }
        return replace(targets, **parts)


class _Join(torch.autograd.Function):
    """Concatenates the slices of all ranks; see `SequenceGroup.join`."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, sequence: SequenceGroup) -> Tensor:
        ctx.sequence = sequence
        whole = mine.new_empty(len(mine) * sequence.size, *mine.shape[1:])
        torch.distributed.all_gather_into_tensor(whole, mine.contiguous(), group=sequence.group)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        mine = grad_output.new_empty(len(grad_output) // ctx.sequence.size, *grad_output.shape[1:])
        torch.distributed.reduce_scatter_tensor(
            mine, grad_output.contiguous(), group=ctx.sequence.group
        )
        return mine, None
