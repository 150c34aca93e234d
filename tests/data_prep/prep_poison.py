"""Unit workers whose cleaner fails at chosen documents, importable by worker processes."""

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.cleaning import Cleaned, Cleaner, Removed
from data_prep.pipeline.units import UnitWorker
from data_prep.settings import BuildSettings


def _raise() -> None:
    raise ZeroDivisionError("division by zero")


POISONS: dict[str, Callable[[], Any]] = {
    "poison: segfault 毒": lambda: ctypes.string_at(0),
    "poison: hang 毒": lambda: time.sleep(1e6),
    "poison: exit 毒": lambda: os._exit(3),
    "poison: raise 毒": _raise,
}


class PoisonedCleaner(Cleaner):
    def clean(self, text: str) -> Cleaned | Removed:
        if text in POISONS:
            POISONS[text]()
        return super().clean(text)


def make_poisoned_worker(tokenizer: Path, settings: BuildSettings, folder: Path) -> UnitWorker:
    worker = UnitWorker(tokenizer, settings, folder)
    worker.cleaner = PoisonedCleaner(settings.cleaning)
    return worker


class FailingMarker:
    """Fails at batches that hold a certain text, as one that does not see single documents."""

    def __init__(self, marker: Any) -> None:
        self.marker = marker

    def mark(self, texts: list[str], tokens: Any, lens: Any) -> Any:
        if "poison: raise 毒" in texts:
            raise ValueError("no marks")
        if "poison: segfault 毒" in texts:
            ctypes.string_at(0)
        return self.marker.mark(texts, tokens, lens)


def make_failing_marker(tokenizer: Path, settings: BuildSettings, folder: Path) -> UnitWorker:
    worker = UnitWorker(tokenizer, settings, folder)
    worker.marker = FailingMarker(worker.marker)  # type: ignore[assignment]
    return worker


class HangingMarker(FailingMarker):
    def mark(self, texts: list[str], tokens: Any, lens: Any) -> Any:
        if "poison: hang 毒" in texts:
            time.sleep(1e6)
        return self.marker.mark(texts, tokens, lens)


def make_hanging_marker(tokenizer: Path, settings: BuildSettings, folder: Path) -> UnitWorker:
    worker = UnitWorker(tokenizer, settings, folder)
    worker.marker = HangingMarker(worker.marker)  # type: ignore[assignment]
    return worker
