"""What happens to checkpoints beside being saved and loaded: told once, kept for the records."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger("megapt.checkpoints")
"""Where faults that were overcome are reported, one line each, as warnings."""


Kind = Literal["damaged", "unsaved", "uncopied", "unremoved"]


@dataclass(frozen=True)
class Event:
    """A fault that was overcome."""

    step: int
    """Of the checkpoint."""
    kind: Kind
    text: str
    """One line."""


class Events:
    """The events since they were last taken.

    Args:
        shown: whether this rank warns of them.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._events: list[Event] = []

    def tell(self, step: int, kind: Kind, text: str) -> None:
        """Warn of an event and keep it. May be called in any thread."""
        self._events.append(Event(step, kind, text))
        if self._shown:
            log.warning("%s", text)

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events = list(self._events)
        del self._events[: len(events)]
        return events
