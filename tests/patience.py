"""How long a test waits for what should be quick."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def patience(seconds: float) -> float:
    """`seconds`, and more of them the busier the processors are."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds * max(1.0, 2.0 * waiting)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds, `patience(seconds)` at most."""
    end = time.monotonic() + patience(seconds)
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
