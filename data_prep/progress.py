"""Shows progress on standard error: a bar on a terminal, otherwise a line from time to time."""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_SECONDS = 15.0


class ByteProgress:
    """Shows how many of `total` bytes are done, the rates and the time left.

    Args:
        title: what is being done.
        total: bytes to do.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self.tokens = 0
        self._skipped = 0
        self._began = self._printed = time.monotonic()
        self._bar: Progress | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TextColumn("{task.fields[tokens]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(title, total=total, tokens="")

    def __enter__(self) -> "ByteProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar:
            self._bar.stop()

    def skip(self, count: int) -> None:
        """Count `count` bytes that were done earlier and do not enter the rate."""
        self._skipped += count
        self.advance(count)

    def advance(self, count: int, tokens: int = 0) -> None:
        """Count `count` more bytes as done, and the tokens made from them."""
        self.done += count
        self.tokens += tokens
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        speed = f"{self.tokens / seconds / 1e6:.1f} Mtokens/s" if self.tokens else ""
        if self._bar:
            self._bar.update(self._task, completed=self.done, tokens=speed)
        elif self.done > self._skipped and now - self._printed >= LINE_SECONDS:
            self._printed = now
            rate = (self.done - self._skipped) / seconds
            left = (self.total - self.done) / rate
            print(
                f"{self.title}: {self.done / self.total:.0%} of {self.total / 1e6:,.0f} MB, "
                + ", ".join(filter(None, [f"{rate / 1e6:.1f} MB/s", speed, f"{left:,.0f} s left"])),
                file=sys.stderr,
                flush=True,
            )
