"""The base class of export formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from megapt.evaluation import LoadedRun


class Exporter(ABC):
    """Base class of export formats. A subclass is one module of this folder, found by `name`."""

    name: ClassVar[str]
    """Name of the format, for `megapt export --to`."""

    def problem(self, run: LoadedRun) -> str:
        """Return why a run does not fit the format and which would; "" if it fits."""
        return ""

    @abstractmethod
    def export(self, run: LoadedRun, folder: Path) -> None:
        """Write a run.

        Args:
            run: newest checkpoint of the run, with float32 weights.
            folder: empty temporary folder; it gets its final name once everything is written.
        """
