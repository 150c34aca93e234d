"""What a tracker is: one place that the records of a run go to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from megapt.config import RunConfig, Section
from megapt.monitoring.metrics import Metrics


@dataclass(frozen=True)
class Start:
    """What a tracker is told when a run starts or is resumed."""

    folder: Path
    """Of the run; it exists."""
    config: RunConfig
    step: int
    """Steps that are done. What a tracker holds of later ones is to be dropped: they come again."""
    records: Sequence[Metrics]
    """Of earlier starts, up to that step, as in metrics.jsonl: a number that is not finite is
    None."""


class Tracker(ABC):
    """Base of all trackers. A subclass is one file of this folder; its `name` registers it.

    The first rank alone has trackers. An OSError is a warning: where it cannot be built, training
    continues without it; of another method it is shown once, and the method is called again with
    what comes next.

    Args:
        own: the tracker's own settings, as its `Config` checked them.
        start: of the run.
    """

    name: ClassVar[str]
    """What users type."""
    Config: ClassVar[type[Section]] = Section
    """Settings of its own."""

    @classmethod
    def problem(cls, own: Any) -> str:
        """Return what forbids these settings on this machine, and what would be right; else ""."""
        return ""

    @abstractmethod
    def __init__(self, own: Any, start: Start) -> None: ...

    @abstractmethod
    def record(self, split: str, step: int, values: Metrics) -> None:
        """Take a record, which comes once.

        Args:
            split: "train" or "valid".
            step: steps that are done.
            values: name -> number, text, or a section of its own such as `clock`. Numbers that are
                not finite stand as they are.
        """

    def event(self, step: int, kind: str, values: Metrics) -> None:  # noqa: B027
        """Take that something happened after `step` steps: a rollback, a checkpoint, …"""

    def histogram(self, step: int, name: str, weights: Tensor) -> None:  # noqa: B027
        """Take the weights of one parameter, of any shape, float32 on the CPU."""

    def close(self) -> None:  # noqa: B027
        """End; nothing is called after this."""
