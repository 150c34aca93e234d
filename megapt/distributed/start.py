"""The start of a rank: DeepSpeed imported without surprises, the process group joined and left."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch.distributed import distributed_c10d

from megapt.distributed.mesh import Mesh
from megapt.distributed.patches import patch
from megapt.distributed.ranks import Ranks


def uses_cuda() -> bool:
    """Return whether this job runs on GPUs; DS_ACCELERATOR=cpu keeps it off them."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def import_deepspeed() -> Any:
    """Import DeepSpeed for the device at hand, quiet, and return the module.

    On a CPU nothing is compiled: the optimiser is torch's own, and the one op that DeepSpeed would
    build unasked (a shared-memory all-reduce for inference) is declared unavailable. On CUDA no op
    is built for training either; should a setting ask for one, a line says so before it starts.
    """
    if not uses_cuda():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    patch(on_cpu=not uses_cuda())
    return deepspeed


_Made = TypeVar("_Made")
_made: list[Callable[[], None]] = []
"""Forget what was made for the process groups that there are."""


def per_process_group(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """Return `make` with a cache that ends with the job's process group."""
    cached = cache(make)
    _made.append(cached.cache_clear)
    return cached


def limit_waits(seconds: float) -> None:
    """Let no collective of this job wait longer, in the groups that there are and in later ones.

    DeepSpeed passes the limit that it is given on to the default group alone; others, such as the
    one that ZeRO works in, would keep torch's 30 minutes (10 with NCCL).
    """
    _set_limit(timedelta(seconds=seconds), timedelta(seconds=seconds))
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


def _set_limit(gloo: timedelta, nccl: timedelta | None) -> None:
    """Set the limits of the groups to come."""
    distributed_c10d.default_pg_timeout = gloo
    distributed_c10d.default_pg_nccl_timeout = nccl  # type: ignore[attr-defined]  # no stub


@dataclass
class _Before:
    """What `start_ranks` found in this process, for `end_ranks`."""

    environment: dict[str, str]
    gloo: timedelta
    nccl: timedelta | None


_before: list[_Before] = []


def start_ranks() -> Ranks:
    """Join the process group that the launcher describes, or form one of this process alone."""
    alone = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    if not torch.distributed.is_initialized():
        limits = (
            distributed_c10d.default_pg_timeout,
            distributed_c10d.default_pg_nccl_timeout,  # type: ignore[attr-defined]
        )
        _before[:] = [_Before(dict(os.environ), *limits)]
    if "RANK" not in os.environ:
        os.environ.update(alone)
    deepspeed = import_deepspeed()
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(verbose=False)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if uses_cuda() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Ranks(torch.distributed.get_rank(), Mesh(torch.distributed.get_world_size()), device)


def end_ranks() -> None:
    """Leave the process group; this process is then as it was before `start_ranks`.

    DeepSpeed stays imported, for the device that it was imported for.
    """
    if torch.distributed.is_initialized():
        import_deepspeed().comm.destroy_process_group()
    for forget in _made:
        forget()
    if _before:
        before = _before.pop()
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
            if name in before.environment:
                os.environ[name] = before.environment[name]
        _set_limit(before.gloo, before.nccl)
