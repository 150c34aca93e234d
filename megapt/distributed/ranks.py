"""The ranks of a job: what each is, and what they decide together."""

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
    """This process among all of the job."""

    rank: int
    mesh: Mesh
    device: torch.device
    group: ProcessGroup | None = None
    """The group of what ranks tell each other, on the CPU: it waits for no device and takes none of
    its memory. None: the default group, where that is gloo's."""

    def arranged(self, sequence: int) -> Ranks:
        """Return this process where `sequence` neighboring ranks share positions."""
        return replace(self, mesh=Mesh(self.world // sequence, sequence))

    @property
    def world(self) -> int:
        """Ranks of the job."""
        return self.mesh.world

    @property
    def data_rank(self) -> int:
        """Which share of each global batch this rank reads."""
        return self.mesh.place(self.rank, "data")

    @property
    def data_world(self) -> int:
        """Into how many shares a global batch is divided."""
        return self.mesh.data

    @property
    def sequence_rank(self) -> int:
        """Which slice of the positions of its micro-batches this rank computes."""
        return self.mesh.place(self.rank, "sequence")

    @property
    def sequence_world(self) -> int:
        """Into how many slices a micro-batch is divided."""
        return self.mesh.sequence

    @property
    def counts(self) -> bool:
        """Whether this rank is the one, of those that share positions, which counts their batch."""
        return self.sequence_rank == 0

    @property
    def main(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of `values` over all ranks, in float64."""
        if self.world == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor, group=self.group)
        return [float(value) for value in tensor.tolist()]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds on some rank."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, mine: Any) -> list[Any]:
        """Return the objects of all ranks, in their order."""
        if self.world == 1:
            return [mine]
        parts: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(parts, mine, group=self.group)
        return parts

    def agree(self, error: MegaptError | None) -> None:
        """Raise the error that some rank has on all of them.

        Args:
            error: of this rank, if it has one.

        Raises:
            MegaptError: on every rank, that of the first one that has any.
        """
        if self.any(error is not None):
            raise next(filter(None, self.gather(error)))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make an error of one rank one of all, so that no rank waits for one that has left.

        What is done inside is each rank's own affair; it must not wait for other ranks.

        Raises:
            MegaptError: on every rank, if one was raised inside on any.
        """
        found: MegaptError | None = None
        try:
            yield
        except MegaptError as error:
            found = error
        self.agree(found)

    def barrier(self) -> None:
        """Wait for all ranks; for what their devices still do, nobody waits."""
        if self.world > 1:
            torch.distributed.barrier(group=self.group)
