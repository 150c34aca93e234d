"""Compares the weights that ranks hold alike: memory or a network may corrupt them in silence."""

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
"""Elements that are hashed at once: 8 MiB of weights of the hash, and as much work space."""
# Odd constants of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_GOLDEN, _MIX_1, _MIX_2 = (
    constant - (1 << 64)
    for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
"""Integers that elements of so many bytes are taken as; a sum modulo 2^64 has room for all."""


def _factors(count: int, device: torch.device) -> Tensor:
    """Return the first `count` numbers of SplitMix64, made odd; int64 [count]."""
    numbers = torch.arange(1, count + 1, device=device) * _GOLDEN
    numbers = (numbers ^ (numbers >> 30)) * _MIX_1
    numbers = (numbers ^ (numbers >> 27)) * _MIX_2
    return numbers | 1


def digest(tensor: Tensor) -> Tensor:
    """Return a hash of a tensor's raw bits, int64 [], computed on its device.

    Each element, taken as one integer or two, is multiplied by an odd number of its own, and the
    products are added modulo 2^64. An odd factor loses no bits, so no change of one element can go
    unseen; and nothing is rounded.
    """
    flat = tensor.detach().reshape(-1).view(_BITS[tensor.element_size()])
    factors = _factors(min(_CHUNK, flat.numel()), flat.device)
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for chunk in torch.split(flat, _CHUNK):
        total = total * _MIX_2 + (chunk * factors[: chunk.numel()]).sum()
    return total


def compare_weights(weights: Iterable[tuple[str, Tensor]], ranks: Ranks) -> None:
    """Compare tensors that all ranks should hold alike, bit by bit.

    Args:
        weights: names and tensors, the same names in the same order on all ranks.
        ranks: of the job.

    Raises:
        TrainingError: on every rank, with the ranks that differ from the majority, their hosts
            and the first tensor in which they do.
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
    # The greatest complement is the complement of the least: one reduction gives both.
    extremes = torch.stack([mine, ~mine])
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    if torch.equal(extremes[0], ~extremes[1]):
        return
    everyone = ranks.gather((socket.gethostname(), mine.tolist()))
    rows = [tuple(row) for _, row in everyone]
    (usual, votes), *_ = Counter(rows).most_common(1)
    differ = [[row[i] for row in rows] for i in range(len(names))]
    uneven = [i for i, column in enumerate(differ) if len(set(column)) > 1]
    if 2 * votes > ranks.world:
        odd = [rank for rank, row in enumerate(rows) if row != usual]
        hosts = ", ".join(f"{rank} on host {everyone[rank][0]}" for rank in odd)
        who = f"the weights of rank {hosts} are not those of the others"
    else:
        hosts = ", ".join(sorted({host for host, _ in everyone}))
        who = f"the ranks' weights differ, and no majority tells which are right (hosts: {hosts})"
    raise TrainingError(
        f"{who}: {len(uneven)} of {len(names)} parameters, first {names[uneven[0]]!r}; memory, a "
        f"device or the network has corrupted them, or an operation is not deterministic"
    )


def compare_replicas(engine: Engine, ranks: Ranks) -> None:
    """Compare the parameters of a model that each rank holds whole: of ZeRO stages 0 to 2.

    In stage 3 no rank holds what another one does. In stages 1 and 2 each update overwrites the
    parameters with those that their owners have computed; what differs is what came over wrong
    since. All ranks call this together.

    Args:
        engine: of the run.
        ranks: of the job.

    Raises:
        TrainingError: see `compare_weights`.
    """
    compare_weights(engine.replicated_parameters(), ranks)
