"""The start of a rank: DeepSpeed imported without surprises, the process group joined and left."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch.distributed import ProcessGroup, distributed_c10d

from megapt.distributed.mesh import Mesh
from megapt.distributed.patches import patch
from megapt.distributed.ranks import Ranks
from megapt.distributed.sequence import device_mesh
from megapt.errors import UnavailableError


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

    On a CPU nothing is compiled: the optimizer is torch's own, and the one op that DeepSpeed would
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


def limit_waits(seconds: float) -> None:
    """Let no collective of this job wait longer, in the groups that there are and in later ones.

    DeepSpeed passes the limit that it is given on to the default group alone; others, such as the
    one that ZeRO works in, would keep torch's 30 minutes (10 with NCCL).
    """
    _set_limit(timedelta(seconds=seconds), timedelta(seconds=seconds))
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


@cache
def _control_group() -> ProcessGroup | None:
    """Return the group for `Ranks`; all ranks call it. It ends with the job's process group."""
    if torch.distributed.get_world_size() == 1 or torch.distributed.get_backend() == "gloo":
        return None
    from deepspeed.constants import default_pg_timeout  # what the default group has

    group: ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=default_pg_timeout)
    return group


def _set_limit(gloo: timedelta, nccl: timedelta | None) -> None:
    """Set the limits of the groups to come."""
    distributed_c10d.default_pg_timeout = gloo
    distributed_c10d.default_pg_nccl_timeout = nccl  # type: ignore[attr-defined]  # no stub


_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class _Before:
    """What `start_ranks` found in this process, for `end_ranks`."""

    variables: dict[str, str]
    gloo: timedelta
    nccl: timedelta | None


_before: list[_Before] = []


def _join() -> None:
    """Join the process group that the environment describes.

    Raises:
        UnavailableError: on the first rank, where the others look for it, if another process
            listens there.
    """
    try:
        import_deepspeed().init_distributed(verbose=False)
    except torch.distributed.DistNetworkError as error:
        if "address already in use" not in str(error).lower():
            raise
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UnavailableError(
            f"{place}: the port at which the ranks meet is taken by another process; give the "
            f"launcher another --master_port"
        ) from None


def start_ranks() -> Ranks:
    """Join the process group that the launcher describes, or form one of this process alone.

    Raises:
        UnavailableError: the port at which the ranks meet is taken.
    """
    if not torch.distributed.is_initialized():
        variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        limits = (
            distributed_c10d.default_pg_timeout,
            distributed_c10d.default_pg_nccl_timeout,  # type: ignore[attr-defined]
        )
        _before[:] = [_Before(variables, *limits)]
    if "RANK" not in os.environ:
        alone = ("0", "0", "1", "127.0.0.1", str(_free_port()))
        os.environ.update(zip(_VARIABLES, alone, strict=True))
    if not torch.distributed.is_initialized():
        _join()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if uses_cuda() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = Mesh(torch.distributed.get_world_size())
    return Ranks(torch.distributed.get_rank(), mesh, device, _control_group())


def end_ranks() -> None:
    """Leave the process group; all ranks call it. What `start_ranks` changed is undone.

    DeepSpeed stays imported, for the device that it was imported for. Of a launcher's job the port
    changes, so that at a next start no rank meets what the first one is about to leave.
    """
    before = _before.pop()
    if torch.distributed.get_world_size() > 1:
        ports: list[Any] = [_free_port()]
        torch.distributed.broadcast_object_list(ports, group=_control_group())
        before.variables["MASTER_PORT"] = str(ports[0])
    import_deepspeed().comm.destroy_process_group()
    device_mesh.cache_clear()
    _control_group.cache_clear()
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(before.variables)
    _set_limit(before.gloo, before.nccl)
