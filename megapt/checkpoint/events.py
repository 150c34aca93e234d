"""Checkpoint faults that do not end the run: each is logged once and kept for the records."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger("megapt.checkpoints")
"""Logger of these faults: one line each, as a warning."""

Kind = Literal["damaged", "unsaved", "uncopied", "unremoved"]


@dataclass(frozen=True)
class Event:
    """A fault that did not end the run."""

    step: int
    """Step of the checkpoint."""
    kind: Kind
    text: str
    """One line."""


class Events:
    """Collects the events since they were last taken.

    Args:
        logged: whether this rank logs them.
    """

    def __init__(self, logged: bool) -> None:
        self._logged = logged
        self._events: list[Event] = []

    def add(self, step: int, kind: Kind, text: str) -> None:
        """Log an event as a warning, and keep it. Any thread may call this."""
        self._events.append(Event(step, kind, text))
        if self._logged:
            log.warning("%s", text)

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events = list(self._events)
        del self._events[: len(events)]
        return events
