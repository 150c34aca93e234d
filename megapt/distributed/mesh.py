"""The device mesh of a job: which ranks share text, positions and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

GRADIENT_DIMENSIONS = ("data", "sequence")
"""Ranks along these dimensions hold the same weights: their gradients are averaged, and ZeRO shards
over them. Along a dimension of tensor parallelism, ranks would hold different weights."""


@dataclass(frozen=True)
class Mesh:
    """The sizes of the dimensions, outermost first: neighboring ranks differ in the last one.

    A dimension `tensor` for tensor parallelism would follow `sequence`.
    """

    data: int = 1
    """Shares of a global batch; ranks along this dimension read different text."""
    sequence: int = 1
    """Ranks that hold the same micro-batch and share its positions."""

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each dimension, outermost first."""
        return {"data": self.data, "sequence": self.sequence}

    @property
    def world(self) -> int:
        """Number of ranks of the job."""
        return math.prod(self.sizes.values())

    @property
    def gradient_world(self) -> int:
        """Number of ranks whose gradients are averaged."""
        return math.prod(self.sizes[name] for name in GRADIENT_DIMENSIONS)

    def place(self, rank: int, dimension: str) -> int:
        """Return the index of a rank along a dimension, from 0."""
        names = list(self.sizes)
        inner = math.prod(self.sizes[name] for name in names[names.index(dimension) + 1 :])
        return rank // inner % self.sizes[dimension]
