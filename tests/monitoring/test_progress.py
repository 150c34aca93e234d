"""What is said of the progress of a run, on a terminal and where there is none."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from megapt.monitoring.progress import TrainingProgress, duration


@pytest.mark.parametrize(("share", "left"), [(0.25, False), (0.5, True)])
def test_the_time_left_is_told_once_there_was_progress(
    capsys: pytest.CaptureFixture[str], share: float, left: bool
) -> None:
    progress = TrainingProgress("run", shown=True)
    progress.begin(0.25)
    progress.update(share, 3, "loss 2.000")
    line = capsys.readouterr().err
    assert line.startswith(f"run: {share:6.1%}")
    assert line.endswith("  step 3  loss 2.000\n")
    assert (" s left" in line) == left
    assert "nan" not in line


_ON_A_TERMINAL = """
import time
from megapt.monitoring.progress import TrainingProgress
progress = TrainingProgress("a-run-of-some-length", shown=True)
progress.begin(0.3)
for step in range(3):
    time.sleep(0.15)
    progress.update(0.3 + 0.02 * step, 1000 + step, "loss 3.123  52,000 tokens/s  MFU 41.2%")
time.sleep(0.3)
progress.close()
print("done")
"""


@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_terminal_of_any_width_shows_how_far_it_is(width: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.run(
        [sys.executable, "-c", _ON_A_TERMINAL],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**environment, "TERM": "xterm"},
        check=True,
    )
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.stdout == b"done\n", "the bar is on standard error"
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "\n")
    lines = [line for line in plain.split("\n") if line.strip()]
    assert max(map(len, lines)) <= width
    assert re.match(r"a-run-of-some-length:  34\.0%, \d+ s left", lines[-1]), lines
    if width > 100:
        assert "MFU 41.2%" in lines[-1]
        assert "━" in lines[-1]


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 4096)
    except OSError:  # Linux says so when the other end is closed.
        return b""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (42.4, "42 s"),
        (121, "2 min"),
        (7140, "119 min"),
        (7500, "2 h 05 min"),
        (60 * 60 * 47, "47 h 00 min"),
        (60 * 60 * 52, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
