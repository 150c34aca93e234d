"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0


class TrainingProgress:
    """Shows how much of the budget is spent.

    Args:
        name: of the run.
        shown: whether this rank shows anything.
    """

    def __init__(self, name: str, shown: bool) -> None:
        self._name = name
        self._shown = shown
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._start = (time.monotonic(), 0.0)
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=1.0, note="")
            self._bar.start()

    def begin(self, share: float) -> None:
        """Say that the share `share` was spent before this process started."""
        self._start = (time.monotonic(), share)

    def update(self, share: float, step: int, note: str) -> None:
        """Show the share of the budget that is spent, and `note`."""
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=share, note=f"step {step}  {note}")
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            began, first = self._start
            done = share - first
            text = f"step {step}  {share:6.1%}  {note}"
            if done > 0:  # not after steps without any text
                text += f"  {(now - began) / done * (1.0 - share):.0f} s left"
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
