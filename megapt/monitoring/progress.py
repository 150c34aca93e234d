"""Progress of training: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 15.0
_BAR_FROM_COLUMNS = 100
"""Narrower terminals show the numbers without a bar."""


class TrainingProgress:
    """Shows the share of the budget that is spent.

    Args:
        name: name of the run.
        shown: whether this rank shows anything.
    """

    def __init__(self, name: str, shown: bool) -> None:
        self._name = name
        self._shown = shown
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._start = (time.monotonic(), 0.0)
        if shown and sys.stderr.isatty():
            console = Console(stderr=True)
            wide = console.width >= _BAR_FROM_COLUMNS
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                *([BarColumn(bar_width=None)] if wide else []),
                console=console,
                transient=True,
                expand=wide,
            )
            self._task = self._bar.add_task(name, total=1.0)
            self._bar.start()

    def begin(self, share: float) -> None:
        """Set the share of the budget that was spent before this process started."""
        self._start = (time.monotonic(), share)
        if self._bar is not None:
            self._bar.update(self._task, completed=share)

    def update(self, share: float, step: int, note: str) -> None:
        """Show the share of the budget that is spent, the time left, and `note`."""
        if not self._shown:
            return
        now = time.monotonic()
        began, first = self._start
        done = share - first
        text = f"{self._name}: {share:6.1%}"
        if done > 0:  # It is 0 after steps without any text.
            text += f", {duration((now - began) / done * (1.0 - share))} left"
        text += f"  step {step:,}  {note}"
        if self._bar is not None:
            self._bar.update(self._task, completed=share, description=text)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()


def duration(seconds: float) -> str:
    """Write seconds in one or two units: `42 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"
