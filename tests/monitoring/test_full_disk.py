"""A disk that is full between two checkpoints does not end a run, and loses no record."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from megapt.monitoring.board import Board
from megapt.monitoring.metrics import MetricsWriter, read_metrics


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


def test_records_are_written_once_there_is_room(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = disk / "metrics.jsonl"
    writer = MetricsWriter(file, 0)
    filler: Path | None = None
    for step in range(1, 301):
        if step == 20:
            filler = fill(disk)
        if step == 280 and filler is not None:
            assert len(read_metrics(file)) < 200
            filler.unlink()
        writer.write("train", step, {"loss": float(step), "note": "x" * 40})
    writer.close()
    assert [record["step"] for record in read_metrics(file)] == list(range(1, 301))
    [warning] = caplog.messages
    assert "metrics.jsonl: No space left on device; training goes on" in warning


def test_tensorboard_is_given_up(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(disk / "board", 0)
    fill(disk)
    for step in range(5000):
        board.scalars("train", step, {"loss": 1.0})
    board.close()
    [warning] = caplog.messages
    assert warning.startswith("TensorBoard shows no more of this run: ")
