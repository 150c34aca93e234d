"""What a run has spent, on the five axes, and what it may spend."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from megapt.config import BudgetConfig


@dataclass(frozen=True)
class Spent:
    """Consumption since the beginning of a run, over all ranks."""

    raw_tokens: float = 0.0
    """Tokens of text that were read."""
    positions: float = 0.0
    """Positions that the trunk computed."""
    targets: float = 0.0
    """Predictions that were scored."""
    model_flops: float = 0.0
    """See `megapt.model.flops`."""
    wall_clock: float = 0.0
    """Seconds in training steps; validation and checkpoints are not counted."""

    @property
    def speed(self) -> float:
        """Raw tokens a second."""
        return self.raw_tokens / self.wall_clock if self.wall_clock else 0.0

    def as_dict(self) -> dict[str, float]:
        """Return axis -> amount."""
        return asdict(self)

    def plus(self, other: Spent) -> Spent:
        """Return the sum of both, axis by axis."""
        mine, theirs = self.as_dict(), other.as_dict()
        return Spent(**{axis: mine[axis] + theirs[axis] for axis in mine})

    def share(self, budget: BudgetConfig) -> float:
        """Return the spent share of `budget`, at most 1."""
        return min(1.0, self.as_dict()[budget.axis] / budget.amount)
