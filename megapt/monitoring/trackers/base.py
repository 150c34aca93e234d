"""Base class of trackers. A tracker is one destination for the records of a run."""

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
    """What a tracker receives when a run starts or resumes."""

    folder: Path
    """Folder of the run; it exists."""
    config: RunConfig
    step: int
    """Steps completed. A tracker must drop records of later steps, because these are repeated."""
    records: Sequence[Metrics]
    """Records and events of earlier starts up to this step, as in metrics.jsonl: numbers that are
    not finite are None."""


class Tracker(ABC):
    """Base class of all trackers. A subclass is one module of this folder, registered by `name`.

    Only the first rank has trackers. An OSError becomes a warning. If the constructor raises it,
    training continues without the tracker. If another method raises it, the warning is shown once,
    and later records and events are still passed to the tracker.

    Args:
        own: settings of the tracker, checked by its `Config`.
        start: folder, configuration, step and earlier records of the run.
    """

    name: ClassVar[str]
    """Name of the tracker in a configuration."""
    Config: ClassVar[type[Section]] = Section
    """Schema of the tracker's settings."""

    @classmethod
    def problem(cls, own: Any) -> str:
        """Return why these settings cannot work here and what would be right; "" if they can."""
        return ""

    @abstractmethod
    def __init__(self, own: Any, start: Start) -> None: ...

    @abstractmethod
    def record(self, split: str, step: int, values: Metrics) -> None:
        """Write a record. Each record is passed once.

        Args:
            split: "train" or "valid".
            step: steps completed.
            values: name -> number, text, list of texts, or a section such as `clock`. Numbers that
                are not finite are passed unchanged.
        """

    def event(self, step: int, kind: str, values: Metrics) -> None:  # noqa: B027
        """Write an event after `step` steps, such as a rollback."""

    def histogram(self, step: int, name: str, weights: Tensor) -> None:  # noqa: B027
        """Write a histogram of one parameter: a float32 tensor of any shape, on the CPU."""

    def close(self) -> None:  # noqa: B027
        """Close the tracker; no other method is called afterwards."""
