"""Traces of chosen steps by torch's profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from megapt.files import write_text

_ROWS = 30
"""Number of operators in the table."""


class Profiler:
    """Traces some steps of the first rank.

    Args:
        folder: folder for `steps-A-B.json.gz`, which chrome://tracing and ui.perfetto.dev open, and
            `steps-A-B.txt`, the operators that took longest.
        first: first step of the trace.
        count: number of steps in the trace; fewer if the run ends earlier.
        device: device of this rank.
    """

    def __init__(self, folder: Path, first: int, count: int, device: torch.device) -> None:
        self._folder = folder
        self._first, self._last = first, first + count - 1
        self._cuda = device.type == "cuda"
        self._done = 0
        self._running: Any = None

    def before(self, step: int) -> None:
        """Start the trace if `step`, which comes next, is its first step."""
        if step == self._first:
            activities = [ProfilerActivity.CPU]
            if self._cuda:
                activities.append(ProfilerActivity.CUDA)
            self._running = profile(activities=activities, record_shapes=True)
            self._running.start()

    def after(self, step: int) -> None:
        """Write the trace if `step`, which is completed, is its last step."""
        self._done = step
        if step >= self._last:
            self.close()

    def close(self) -> None:
        """Stop and write a running trace; it contains the steps completed so far."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.stop()
        if self._done < self._first:
            return
        self._folder.mkdir(exist_ok=True)
        name = f"steps-{self._first}-{self._done}"
        trace = self._folder / f"{name}.json.gz"
        partial = trace.with_name(f".partial-{trace.name}")  # The ending `.gz` compresses it.
        running.export_chrome_trace(str(partial))
        partial.replace(trace)
        order = "self_device_time_total" if self._cuda else "self_cpu_time_total"
        table = running.key_averages().table(sort_by=order, row_limit=_ROWS)
        write_text(self._folder / f"{name}.txt", table + "\n")
