"""How the ranks of a job are arranged: who reads what, and whose gradients are averaged."""

from __future__ import annotations

import math
from dataclasses import dataclass

GRADIENT_DIMENSIONS = ("data", "sequence")
"""Ranks along these hold the same weights, so that their gradients are averaged, and ZeRO shards
over them. Along a dimension of tensor parallelism they would hold other weights."""


@dataclass(frozen=True)
class Mesh:
    """The sizes of the dimensions, the outermost first: neighboring ranks differ in the last.

    A dimension `tensor`, of ranks that share the weights of a layer, would follow `sequence`.
    """

    data: int = 1
    """Shares of a global batch: ranks along it read different text."""
    sequence: int = 1
    """Ranks that hold the same micro-batch and share its positions."""

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each dimension, the outermost first."""
        return {"data": self.data, "sequence": self.sequence}

    @property
    def world(self) -> int:
        """Ranks of the job."""
        return math.prod(self.sizes.values())

    @property
    def gradient_world(self) -> int:
        """Ranks whose gradients are averaged."""
        return math.prod(self.sizes[name] for name in GRADIENT_DIMENSIONS)

    def place(self, rank: int, dimension: str) -> int:
        """Return where a rank stands along a dimension, from 0."""
        names = list(self.sizes)
        inner = math.prod(self.sizes[name] for name in names[names.index(dimension) + 1 :])
        return rank // inner % self.sizes[dimension]
