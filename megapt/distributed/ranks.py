"""The ranks of a job: their places in the mesh, and collectives on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed import ProcessGroup

from megapt.distributed.mesh import Mesh
from megapt.errors import MegaptError


@dataclass(frozen=True)
class Ranks:
    """This process as a rank of the job."""

    rank: int
    mesh: Mesh
    device: torch.device
    group: ProcessGroup | None = None
    """Process group for collectives on the CPU: they neither wait for a device nor take its memory.
    None for the default group, if its backend is gloo."""

    def with_sequence_parallel(self, sequence: int) -> Ranks:
        """Return this process in a mesh where `sequence` neighboring ranks share positions."""
        return replace(self, mesh=Mesh(self.world // sequence, sequence))

    @property
    def world(self) -> int:
        """Number of ranks of the job."""
        return self.mesh.world

    @property
    def data_rank(self) -> int:
        """Index of the share of each global batch that this rank reads."""
        return self.mesh.place(self.rank, "data")

    @property
    def data_world(self) -> int:
        """Number of shares of a global batch."""
        return self.mesh.data

    @property
    def sequence_rank(self) -> int:
        """Index of the slice of positions that this rank computes."""
        return self.mesh.place(self.rank, "sequence")

    @property
    def sequence_world(self) -> int:
        """Number of slices of positions of a micro-batch."""
        return self.mesh.sequence

    @property
    def counts(self) -> bool:
        """Whether this rank counts the batch for the ranks that share its positions."""
        return self.sequence_rank == 0

    @property
    def main(self) -> bool:
        """Whether this rank writes files and prints messages."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of `values` over all ranks, in float64."""
        if self.world == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor, group=self.group)
        return [float(value) for value in tensor.tolist()]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any rank."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, mine: Any) -> list[Any]:
        """Return the objects of all ranks, in rank order."""
        if self.world == 1:
            return [mine]
        parts: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(parts, mine, group=self.group)
        return parts

    def raise_on_all(self, error: MegaptError | None) -> None:
        """Raise an error that any rank has on all ranks.

        Args:
            error: this rank's error, if it has one.

        Raises:
            MegaptError: on every rank, the error of the first rank that has one.
        """
        if self.any(error is not None):
            raise next(filter(None, self.gather(error)))

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """Raise an error of one rank on all ranks, so that none waits for a rank that has failed.

        The code inside the context must not call collectives.

        Raises:
            MegaptError: on every rank, if any rank raised one inside.
        """
        found: MegaptError | None = None
        try:
            yield
        except MegaptError as error:
            found = error
        self.raise_on_all(found)

    def barrier(self) -> None:
        """Wait for all ranks, but not for pending work on their devices."""
        if self.world > 1:
            torch.distributed.barrier(group=self.group)
