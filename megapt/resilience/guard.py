"""Judges each update: losses and gradients that are not finite, and losses that jump."""

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

_LEAST_DEVIATION = 1e-3
"""Of the mean: a loss that hardly moves has no spikes as small as its own noise."""
_SEARCH = 40
"""Overflows in a row that fp16's loss scale may need to find its size: twice its 16 halvings from
2^16 to 1, which DeepSpeed's hysteresis may delay, and some."""


class Verdict(Enum):
    """What is to be done with an update whose loss is known."""

    KEEP = "keep"
    SKIP = "skip"


@dataclass(frozen=True)
class Reaction:
    """What an update leads to."""

    event: str = ""
    """What is to be recorded: `skipped`, `spike` or nothing."""
    what: dict[str, Any] = field(default_factory=dict)
    """What is recorded of it."""
    rollback: bool = False
    """Whether the run goes back to its last checkpoint."""


class Guard:
    """Judges updates by the loss of the whole step, which all ranks know; so all judge alike.

    A spike is a loss more than `spike_threshold` standard deviations above the mean of the last
    `spike_window` accepted losses, once half as many are known. Spikes do not enter the
    statistics, but for as many in a row as half the window: that is the new level, from which the
    statistics begin anew. They are computed from the losses themselves each time, so that a
    resumed run judges exactly as an unbroken one.

    Args:
        config: what is a fault, and what is done about it.
        state: of an earlier guard of the run; None at its beginning.
        scaled: fp16: gradients overflow while DeepSpeed looks for its loss scale, which is no
            fault; a limit of their own holds for them.

    Attributes:
        skipped: updates left out so far.
        rollbacks: how often the run went back so far.
    """

    def __init__(
        self, config: FaultsConfig, state: Mapping[str, Any] | None = None, scaled: bool = False
    ) -> None:
        self._config = config
        self._overflows = (
            max(config.max_skipped_updates, _SEARCH) if scaled else config.max_skipped_updates
        )
        state = state or {}
        self._losses: deque[float] = deque(state.get("losses", ()), config.spike_window)
        self._skips = int(state.get("skips", 0))
        self._spikes = int(state.get("spikes", 0))
        self.skipped = int(state.get("skipped", 0))
        self.rollbacks = int(state.get("rollbacks", 0))

    @property
    def state(self) -> dict[str, Any]:
        """What another guard begins with to judge as this one would; JSON keeps it as it is."""
        return {
            "losses": list(self._losses),
            "skips": self._skips,
            "spikes": self._spikes,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
        }

    def judge(self, loss: float | None) -> Verdict:
        """Say before an update whether to apply it.

        Args:
            loss: of the whole step; None if nothing was to be predicted in it.
        """
        if loss is None:
            return Verdict.KEEP
        spike = (
            self._config.on_spike != "record" and self._above(loss) > self._config.spike_threshold
        )
        return Verdict.SKIP if spike or not math.isfinite(loss) else Verdict.KEEP

    def seen(self, step: int, loss: float | None, update: Update) -> Reaction:
        """Take note of an update and say what follows.

        Args:
            step: its number, from 1.
            loss: as `judge` was told.
            update: what has become of it.

        Raises:
            TrainingError: the run is to go back, and has done so too often.
        """
        what = {"loss": loss, "gradient_norm": update.norm}
        finite = loss is None or math.isfinite(loss)
        above = self._above(loss) if loss is not None and finite else 0.0
        spike = above > self._config.spike_threshold > 0
        if spike:
            what["deviations"] = above
            self._spikes += 1
            if 2 * self._spikes >= self._config.spike_window:
                self._forget()
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
        return self._roll_back(step, event, what, f"{self._skips} updates in a row were left out")

    def failure(self, step: int, reason: str) -> TrainingError:
        """Return the error that ends the run.

        Args:
            step: where.
            reason: why it cannot go on.
        """
        return TrainingError(
            f"step {step}: {reason}; a lower optimizer.lr or a larger schedule.warmup_ratio "
            f"usually helps, and so may a look at the text of these steps"
        )

    def _roll_back(self, step: int, event: str, what: dict[str, Any], reason: str) -> Reaction:
        if self.rollbacks >= self._config.max_rollbacks:
            often = f"the run has gone back {self.rollbacks} times (faults.max_rollbacks)"
            raise self.failure(step, f"{reason}, and {often}")
        self.rollbacks += 1
        self._forget()
        return Reaction(event, {**what, "reason": reason}, rollback=True)

    def _forget(self) -> None:
        self._losses.clear()
        self._skips = self._spikes = 0

    def _above(self, loss: float) -> float:
        """Return by how many standard deviations a finite loss is above the mean; 0 if unknown."""
        count = len(self._losses)
        known = self._config.spike_threshold > 0 and 2 * count >= self._config.spike_window
        if not known or not math.isfinite(loss):
            return 0.0
        mean = math.fsum(self._losses) / count
        variance = math.fsum((each - mean) ** 2 for each in self._losses) / count
        least = max(_LEAST_DEVIATION * abs(mean), 1e-12)
        return max(loss - mean, 0.0) / max(math.sqrt(variance), least)
