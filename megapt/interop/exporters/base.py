"""What an export format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from megapt.evaluation import LoadedRun


class Exporter(ABC):
    """Base of all export formats. A subclass is one file of this folder, found by its `name`."""

    name: ClassVar[str]
    """What users type."""

    def problem(self, run: LoadedRun) -> str:
        """Return why a run does not fit the format, and what would; "" if it does."""
        return ""

    @abstractmethod
    def export(self, run: LoadedRun, folder: Path) -> None:
        """Write a run.

        Args:
            run: its newest checkpoint, float32.
            folder: empty; it appears under its name once all is written.
        """
