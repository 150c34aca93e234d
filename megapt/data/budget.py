"""What a run has consumed on the five budget axes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from megapt.config import BudgetConfig


@dataclass(frozen=True)
class Spent:
    """Consumption since the beginning of a run, over all ranks."""

    raw_tokens: float = 0.0
    """Tokens of text that the run has read."""
    positions: float = 0.0
    """Positions that the trunk computed."""
    targets: float = 0.0
    """Predictions with a loss."""
    model_flops: float = 0.0
    """See `megapt.model.flops`."""
    wall_clock: float = 0.0
    """Seconds in training steps, without validation and checkpoints."""

    @property
    def speed(self) -> float:
        """Raw tokens per second."""
        return self.raw_tokens / self.wall_clock if self.wall_clock else 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the amount of each axis."""
        return asdict(self)

    def plus(self, other: Spent) -> Spent:
        """Return the sum of both, axis by axis."""
        mine, theirs = self.as_dict(), other.as_dict()
        return Spent(**{axis: mine[axis] + theirs[axis] for axis in mine})

    def share(self, budget: BudgetConfig) -> float:
        """Return the consumed share of `budget`, at most 1."""
        return min(1.0, self.as_dict()[budget.axis] / budget.amount)
