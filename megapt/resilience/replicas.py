"""Compares replicated weights across ranks: memory or a network may corrupt them silently."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.errors import TrainingError

_CHUNK = 1 << 20
"""Elements that are hashed at once: 8 MiB of factors, and as much work space."""
# Odd constants of SplitMix64 (Steele, Lea and Flood 2014), as signed 64-bit integers.
_GOLDEN, _MIX_1, _MIX_2 = (
    constant - (1 << 64)
    for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
"""Bytes of an element -> integer type as which it is read. All fit into sums modulo 2^64."""


def _factors(count: int, device: torch.device) -> Tensor:
    """Return the first `count` numbers of SplitMix64, made odd; int64 [count]."""
    numbers = torch.arange(1, count + 1, device=device) * _GOLDEN
    numbers = (numbers ^ (numbers >> 30)) * _MIX_1
    numbers = (numbers ^ (numbers >> 27)) * _MIX_2
    return numbers | 1


def digest(tensor: Tensor) -> Tensor:
    """Return a hash of a tensor's raw bits, int64 [], computed on its device.

    Each element is read as one or two integers. Each integer is multiplied by its own odd factor,
    and the products are added modulo 2^64. An odd factor loses no bits, so every change of one
    integer changes the hash. Nothing is rounded.
    """
    flat = tensor.detach().reshape(-1).view(_BITS[tensor.element_size()])
    factors = _factors(min(_CHUNK, flat.numel()), flat.device)
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for chunk in torch.split(flat, _CHUNK):
        total = total * _MIX_2 + (chunk * factors[: chunk.numel()]).sum()
    return total


def compare_weights(weights: Iterable[tuple[str, Tensor]], ranks: Ranks) -> None:
    """Compare tensors that should be equal on all ranks, bit by bit.

    Args:
        weights: names and tensors; all ranks pass the same names in the same order.
        ranks: ranks of the job.

    Raises:
        TrainingError: on every rank; the text names the ranks that differ from the majority, their
            hosts and the first tensor that differs.
    """
    if ranks.world == 1:
        return
    names, digests = [], []
    for name, tensor in weights:
        names.append(name)
        digests.append(digest(tensor))
    if not digests:
        return
    mine = torch.stack(digests)
    # max(~x) = ~min(x), so one reduction gives maximum and minimum.
    extremes = torch.stack([mine, ~mine])
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    if torch.equal(extremes[0], ~extremes[1]):
        return
    gathered = ranks.gather((socket.gethostname(), mine.tolist()))
    rows = [tuple(row) for _, row in gathered]
    (majority, count), *_ = Counter(rows).most_common(1)
    columns = [[row[i] for row in rows] for i in range(len(names))]
    differing = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    if 2 * count > ranks.world:
        minority = [rank for rank, row in enumerate(rows) if row != majority]
        hosts = ", ".join(f"{rank} on host {gathered[rank][0]}" for rank in minority)
        what = f"the weights of rank {hosts} differ from those of the other ranks"
    else:
        hosts = ", ".join(sorted({host for host, _ in gathered}))
        what = f"the ranks' weights differ, and no majority shows which are right (hosts: {hosts})"
    raise TrainingError(
        f"{what}: {len(differing)} of {len(names)} parameters, first {names[differing[0]]!r}; "
        f"memory, a device or the network has corrupted them, or an operation is not deterministic"
    )


def compare_replicas(engine: Engine, ranks: Ranks) -> None:
    """Compare the parameters of a model that every rank holds whole: at ZeRO stages 0 to 2.

    At stage 3 the ranks hold different parts. At stages 1 and 2 each update overwrites the
    parameters with those that their owners have computed, so a difference arose in or after this
    transfer. All ranks call this together.

    Args:
        engine: engine of the run.
        ranks: ranks of the job.

    Raises:
        TrainingError: see `compare_weights`.
    """
    compare_weights(engine.replicated_parameters(), ranks)
