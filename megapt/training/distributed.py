"""The ranks of a job, and DeepSpeed prepared so that nothing surprises at the start."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch

from megapt.config import ConfigError
from megapt.training.amendments import amend


@dataclass(frozen=True)
class Ranks:
    """This process among all of the job."""

    rank: int
    world: int
    device: torch.device
    sequence: int = 1
    """Neighbouring ranks that hold the same micro-batch and share its positions."""

    @property
    def data_rank(self) -> int:
        """Which share of each global batch this rank reads."""
        return self.rank // self.sequence

    @property
    def data_world(self) -> int:
        """Into how many shares a global batch is divided."""
        return self.world // self.sequence

    @property
    def counts(self) -> bool:
        """Whether this rank is the one, of those that share positions, which counts their batch."""
        return self.rank % self.sequence == 0

    @property
    def main(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of `values` over all ranks, in float64."""
        if self.world == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds on some rank."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, mine: Any) -> list[Any]:
        """Return the objects of all ranks, in their order."""
        if self.world == 1:
            return [mine]
        parts: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(parts, mine)
        return parts

    def agree(self, problem: str) -> None:
        """Raise the problem that some rank has on all of them.

        Args:
            problem: of this rank, one line; empty if there is none.

        Raises:
            ConfigError: on every rank, with the problem of the first one that has any.
        """
        if self.any(bool(problem)):
            raise ConfigError(next(filter(None, self.gather(problem))))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make a ConfigError of one rank one of all, so that no rank waits for one that has left.

        What is done inside is each rank's own affair; it must not wait for other ranks.

        Raises:
            ConfigError: on every rank, if one was raised inside on any.
        """
        problem = ""
        try:
            yield
        except ConfigError as error:
            problem = str(error)
        self.agree(problem)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            torch.distributed.barrier()


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
    amend(on_cpu=not uses_cuda())
    return deepspeed


def limit_waits(seconds: float) -> None:
    """Let no collective of this job wait longer, in the groups that there are and in later ones.

    DeepSpeed passes the limit that it is given on to the default group alone; others, such as the
    one that ZeRO works in, would keep torch's 30 minutes (10 with NCCL).
    """
    from torch.distributed import distributed_c10d

    limit = timedelta(seconds=seconds)
    distributed_c10d.default_pg_timeout = limit
    distributed_c10d.default_pg_nccl_timeout = limit  # type: ignore[attr-defined]  # no stub
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(limit, group)


def start_ranks() -> Ranks:
    """Join the process group that the launcher describes, or form one of this process alone."""
    alone = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    if "RANK" not in os.environ:
        os.environ.update(alone)
    deepspeed = import_deepspeed()
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(verbose=False)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if uses_cuda() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
