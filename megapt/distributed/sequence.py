"""Process groups of ranks that share positions, and the exchange of heads for positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from megapt.distributed.mesh import Mesh
from megapt.distributed.ranks import Ranks

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(queries, keys, values, dropout) -> attention output; tensors are [positions, heads, width]."""


@cache
def device_mesh(device: str, mesh: Mesh) -> DeviceMesh:
    """Return the process groups along each dimension; destroyed with the default process group."""
    ranks = torch.arange(mesh.world).view(*mesh.sizes.values())
    return DeviceMesh(device, ranks, mesh_dim_names=tuple(mesh.sizes))


def sequence_process_group(ranks: Ranks) -> Any:
    """Return the process group of the ranks that share positions. All ranks must call it."""
    return device_mesh(ranks.device.type, ranks.mesh).get_group("sequence")


def with_exchange(attend: Attend, group: Any) -> Attend:
    """Return attention on slices of positions (Jacobs et al. 2023).

    Each rank has a slice of the positions of all heads. DeepSpeed's all-to-all gives it all
    positions of some heads for `attend`; a second all-to-all returns the slice of the output.

    Args:
        attend: attention on all positions of heads / ranks heads.
        group: process group of the ranks; their number divides the numbers of heads and positions.
    """
    from deepspeed.sequence.layer import DistributedAttention

    def whole(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        # The shape is [positions, batch of 1, heads, width].
        return attend(q[:, 0], k[:, 0], v[:, 0], dropout)[:, None]

    exchange: Any = DistributedAttention(whole, group)

    def attend_slice(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        q, k, v = (states[:, None] for states in (q, k, v))
        # The batch is dimension 1; no rotary angles.
        out: Tensor = exchange(q, k, v, 1, None, dropout)
        return out[:, 0]

    return attend_slice
