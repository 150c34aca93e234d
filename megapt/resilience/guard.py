"""Judges each update: finds non-finite losses and gradients, and loss spikes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from megapt.config import FaultsConfig
from megapt.distributed.engine import Update
from megapt.errors import TrainingError

_MIN_DEVIATION = 1e-3
"""Smallest standard deviation, as a share of the mean: on a plateau, noise is no spike."""
_MAX_OVERFLOWS = 40
"""Overflows in a row that fp16 may need to find its loss scale: twice the 16 halvings from 2^16 to
1, since DeepSpeed's hysteresis may delay them, plus a margin."""


class Verdict(Enum):
    """What to do with an update whose loss is known."""

    KEEP = "keep"
    SKIP = "skip"


@dataclass(frozen=True)
class Reaction:
    """Reaction to an update."""

    event: str = ""
    """Event to record: `skipped`, `spike`, or empty for none."""
    what: dict[str, Any] = field(default_factory=dict)
    """Fields of the event."""
    rollback: bool = False
    """Whether the run rolls back to its last checkpoint."""


class Guard:
    """Judges updates by the loss of the whole step. All ranks know it, so all judge alike.

    A spike is a loss more than `spike_threshold` standard deviations above the mean of the last
    `spike_window` accepted losses. Spikes are detected once half a window of losses is known. They
    do not enter the statistics. But half a window of spikes in a row is a new level, and the
    statistics start again. They are computed from the losses themselves each time, so a resumed
    run judges exactly as an uninterrupted one.

    Args:
        config: what is a fault, and how to react.
        state: `state` of an earlier guard of the run; None at the start of the run.
        scaled: whether training uses fp16. Gradients then overflow while DeepSpeed searches its
            loss scale. This is no fault, so such overflows have their own limit.
    """

    def __init__(
        self, config: FaultsConfig, state: Mapping[str, Any] | None = None, scaled: bool = False
    ) -> None:
        self._config = config
        self._overflows = (
            max(config.max_skipped_updates, _MAX_OVERFLOWS)
            if scaled
            else config.max_skipped_updates
        )
        state = state or {}
        self._losses: deque[float] = deque(state.get("losses", ()), config.spike_window)
        self._skips = int(state.get("skips", 0))
        self._spikes = int(state.get("spikes", 0))
        self.skipped = int(state.get("skipped", 0))
        """Updates skipped so far."""
        self.rollbacks = int(state.get("rollbacks", 0))
        """Rollbacks so far."""

    @property
    def state(self) -> dict[str, Any]:
        """State from which another guard judges like this one. JSON preserves it exactly."""
        return {
            "losses": list(self._losses),
            "skips": self._skips,
            "spikes": self._spikes,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
        }

    def judge(self, loss: float | None) -> Verdict:
        """Decide before an update whether to apply it.

        Args:
            loss: loss of the whole step; None if the step has no targets.
        """
        if loss is None:
            return Verdict.KEEP
        spike = (
            self._config.on_spike != "record"
            and self._deviations(loss) > self._config.spike_threshold
        )
        return Verdict.SKIP if spike or not math.isfinite(loss) else Verdict.KEEP

    def seen(self, step: int, loss: float | None, update: Update) -> Reaction:
        """Record an update and return the reaction to it.

        Args:
            step: number of the step, from 1.
            loss: same as for `judge`.
            update: result of the update.

        Raises:
            TrainingError: a rollback is due, and the run has none left.
        """
        what = {"loss": loss, "gradient_norm": update.norm}
        finite = loss is None or math.isfinite(loss)
        above = self._deviations(loss) if loss is not None and finite else 0.0
        spike = above > self._config.spike_threshold > 0
        if spike:
            what["deviations"] = above
            self._spikes += 1
            if 2 * self._spikes >= self._config.spike_window:
                self._reset()
        elif finite:
            self._spikes = 0
        if spike and self._config.on_spike == "rollback":
            self.skipped += not update.applied
            reason = f"a loss of {loss:.4g}, {above:.1f} standard deviations above the mean"
            return self._roll_back(step, "spike", what, reason)
        if update.applied:
            self._skips = 0
            if loss is not None and finite and not spike:
                self._losses.append(loss)
            return Reaction("spike", what) if spike else Reaction()
        self.skipped += 1
        self._skips += 1
        what["in_a_row"] = self._skips
        event = "spike" if spike else "skipped"
        if self._skips < (
            self._config.max_skipped_updates if spike or not finite else self._overflows
        ):
            return Reaction(event, what)
        return self._roll_back(step, event, what, f"{self._skips} updates in a row were skipped")

    def failure(self, step: int, reason: str) -> TrainingError:
        """Return the error that ends the run.

        Args:
            step: step at which it ends.
            reason: why training cannot continue.
        """
        return TrainingError(
            f"step {step}: {reason}; try a lower optimizer.lr or a larger "
            f"schedule.warmup_ratio, and look at the text of these steps"
        )

    def _roll_back(self, step: int, event: str, what: dict[str, Any], reason: str) -> Reaction:
        if self.rollbacks >= self._config.max_rollbacks:
            limit = f"the run has rolled back {self.rollbacks} times (faults.max_rollbacks)"
            raise self.failure(step, f"{reason}, and {limit}")
        self.rollbacks += 1
        self._reset()
        return Reaction(event, {**what, "reason": reason}, rollback=True)

    def _reset(self) -> None:
        self._losses.clear()
        self._skips = self._spikes = 0

    def _deviations(self, loss: float) -> float:
        """Return how many standard deviations a loss is above the mean; 0 if unknown or below."""
        count = len(self._losses)
        known = self._config.spike_threshold > 0 and 2 * count >= self._config.spike_window
        if not known or not math.isfinite(loss):
            return 0.0
        mean = math.fsum(self._losses) / count
        variance = math.fsum((each - mean) ** 2 for each in self._losses) / count
        least = max(_MIN_DEVIATION * abs(mean), 1e-12)
        return max(loss - mean, 0.0) / max(math.sqrt(variance), least)
