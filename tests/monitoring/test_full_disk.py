"""A disk that is full between two checkpoints does not end a run, and loses no record."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins
from megapt.data.budget import Spent
from megapt.monitoring.metrics import read_metrics
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.trackers import find_trackers
from tests.training.runs import ALONE, run_config


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def monitor_of(disk: Path, *trackers: str) -> Monitor:
    config = run_config(disk, disk, monitor={"trackers": list(trackers)})
    return Monitor(RunFolder(disk), config, find_trackers(config, Origins()), ALONE, 0, Spent())


def test_records_are_written_once_there_is_room(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = monitor_of(disk, "jsonl")
    file = disk / "metrics.jsonl"
    filler: Path | None = None
    for step in range(1, 301):
        if step == 20:
            filler = fill(disk)
        if step == 280 and filler is not None:
            assert len(read_metrics(file)) < 200
            filler.unlink()
        monitor.event(step, "spike", note="x" * 40)
    monitor.close()
    assert [record["step"] for record in read_metrics(file)] == list(range(1, 301))
    [warning] = caplog.messages
    assert warning.startswith("tracker 'jsonl': ")
    assert warning.endswith("metrics.jsonl: No space left on device; training continues")


def test_tensorboard_is_given_up(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor = monitor_of(disk, "tensorboard")
    fill(disk)
    for step in range(5000):
        monitor.validation(step, {"loss": 1.0})
    monitor.close()
    jsonl, board = sorted(caplog.messages)
    assert jsonl.startswith("tracker 'jsonl': ")
    assert board.startswith("tracker 'tensorboard': ")
    assert "No space left on device" in board
