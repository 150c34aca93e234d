"""Starts and ends a rank: imports DeepSpeed, joins and leaves the process group."""

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
    """Return whether this job runs on GPUs; DS_ACCELERATOR=cpu disables them."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def import_deepspeed() -> Any:
    """Import DeepSpeed for the available device, without its log lines, and return the module.

    On a CPU nothing is compiled: the optimizer is torch's, and the one op that DeepSpeed would
    build on its own (a shared-memory all-reduce for inference) is declared unavailable. On CUDA,
    training builds no op by default; if a setting requires one, a line announces the build.
    """
    if not uses_cuda():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    patch(on_cpu=not uses_cuda())
    return deepspeed


def set_timeout(seconds: float) -> None:
    """Set the timeout of collectives in all existing and future process groups.

    DeepSpeed applies its timeout only to the default group; other groups, such as that of ZeRO,
    would keep torch's 30 minutes (10 with NCCL).

    Args:
        seconds: the timeout.
    """
    _set_default_timeouts(timedelta(seconds=seconds), timedelta(seconds=seconds))
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


@cache
def _control_group() -> ProcessGroup | None:
    """Return the CPU group for `Ranks`. All ranks must call it.

    It is destroyed together with the default group.
    """
    if torch.distributed.get_world_size() == 1 or torch.distributed.get_backend() == "gloo":
        return None
    from deepspeed.constants import default_pg_timeout  # The default group's.

    group: ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=default_pg_timeout)
    return group


def _set_default_timeouts(gloo: timedelta, nccl: timedelta | None) -> None:
    """Set the timeouts of future groups."""
    distributed_c10d.default_pg_timeout = gloo
    distributed_c10d.default_pg_nccl_timeout = nccl  # type: ignore[attr-defined]  # no stub


_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class _ProcessState:
    """The state before `start_ranks`, which `end_ranks` restores."""

    variables: dict[str, str]
    gloo: timedelta
    nccl: timedelta | None


_saved: list[_ProcessState] = []


def _join_process_group() -> None:
    """Join the process group that the environment describes.

    Raises:
        UnavailableError: on the first rank, if another process uses the port on which the ranks
            connect to it.
    """
    try:
        import_deepspeed().init_distributed(verbose=False)
    except torch.distributed.DistNetworkError as error:
        if "address already in use" not in str(error).lower():
            raise
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UnavailableError(
            f"{address}: the port on which the ranks connect is used by another process; give the "
            f"launcher another --master_port"
        ) from None


def start_ranks() -> Ranks:
    """Join the process group that the launcher describes, or create one of this process alone.

    Raises:
        UnavailableError: the port on which the ranks connect is in use.
    """
    if not torch.distributed.is_initialized():
        variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        limits = (
            distributed_c10d.default_pg_timeout,
            distributed_c10d.default_pg_nccl_timeout,  # type: ignore[attr-defined]
        )
        _saved[:] = [_ProcessState(variables, *limits)]
    if "RANK" not in os.environ:
        alone = ("0", "0", "1", "127.0.0.1", str(_free_port()))
        os.environ.update(zip(_VARIABLES, alone, strict=True))
    if not torch.distributed.is_initialized():
        _join_process_group()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if uses_cuda() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = Mesh(torch.distributed.get_world_size())
    return Ranks(torch.distributed.get_rank(), mesh, device, _control_group())


def end_ranks() -> None:
    """Leave the process group and undo the changes of `start_ranks`. All ranks must call it.

    DeepSpeed stays imported for its device. For a job of several ranks the port changes, so that at
    the next start no rank connects to the rendezvous that the first rank is about to close.
    """
    saved = _saved.pop()
    if torch.distributed.get_world_size() > 1:
        ports: list[Any] = [_free_port()]
        torch.distributed.broadcast_object_list(ports, group=_control_group())
        saved.variables["MASTER_PORT"] = str(ports[0])
    import_deepspeed().comm.destroy_process_group()
    device_mesh.cache_clear()
    _control_group.cache_clear()
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(saved.variables)
    _set_default_timeouts(saved.gloo, saved.nccl)
