"""A disk that is full keeps the checkpoints before, and the run goes on until it is free again."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from megapt.checkpoint import steps_saved
from megapt.distributed.ranks import Ranks
from megapt.errors import CheckpointError
from tests.checkpoint.engines import (
    advance,
    checkpoints_of,
    make_engine,
    settings,
    state_of,
    train,
)
from tests.ranks import run_ranks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, left: int) -> None:
    """Write a file that leaves so many bytes free."""
    filler = disk / "filler"
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with open(filler, "r+b") as file:
        file.truncate(max(filler.stat().st_size - left, 0))


def train_on_full_disk(
    ranks: Ranks, disk: Path, full: list[int], left: int, checkpoint: dict[str, Any]
) -> tuple[list[list[int]], list[tuple[int, str]], str]:
    """Save after each of six steps; the disk is full in some of them.

    Returns:
        The steps saved after each; the events; the error that ends it.
    """
    logging.getLogger("megapt.checkpoints").setLevel(logging.ERROR)
    config, folder = settings(2), disk / "checkpoints"
    engine = make_engine(ranks, config)
    checkpoints = checkpoints_of(folder, ranks, keep_last=3, **checkpoint)
    found: list[list[int]] = []
    events: list[tuple[int, str]] = []
    said = ""
    try:
        for step in range(1, 7):
            advance(engine, ranks, step, step)
            if ranks.main and step in full:
                fill(disk, left)
            ranks.barrier()
            checkpoints.save(engine, state_of(step, ranks, config))
            checkpoints.settle(True)
            ranks.barrier()
            found.append(steps_saved(folder))
            events += [(event.step, event.kind) for event in checkpoints.take_events()]
            if ranks.main and step in full:
                (disk / "filler").unlink()
            assert not list(folder.glob(".*"))
            ranks.barrier()
        checkpoints.finish()
    except CheckpointError as error:
        said = str(error)
    return found, events, said


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("left", [0, 12_000, 30_000])
def test_a_full_disk_costs_the_checkpoint_and_nothing_else(
    disk: Path, left: int, asynchronous: bool
) -> None:
    """It is full for its folder, for the first file of a rank, for the last ones."""
    checkpoint = {"async_save": asynchronous}
    mine, theirs = run_ranks(2, train_on_full_disk, disk, [3, 4], left, checkpoint)
    assert mine == theirs
    found, events, said = mine
    assert found == [[1], [1, 2], [1, 2], [1, 2], [1, 2, 5], [2, 5, 6]]
    assert events == [(3, "unsaved"), (4, "unsaved")]
    assert said == ""
    whole = run_ranks(2, train, disk / "whole", settings(2), 7, 9)[0]
    assert run_ranks(2, train, disk / "checkpoints", settings(2), 7, 9)[0] == whole[6:]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_three_full_disks_in_a_row_end_the_run(disk: Path, asynchronous: bool) -> None:
    args = (disk, [2, 3, 4, 5], 12_000, {"async_save": asynchronous})
    mine, theirs = run_ranks(2, train_on_full_disk, *args)
    assert mine == theirs
    found, events, said = mine
    assert found == [[1]] * 3
    assert events == [(2, "unsaved"), (3, "unsaved")]
    assert said.startswith("3 times in a row: the checkpoint of step 4 could not be written (")
    assert said.endswith("the last one is step 1")
    assert "\n" not in said


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_run_that_ends_on_a_full_disk_says_so(disk: Path, asynchronous: bool) -> None:
    args = (disk, [6], 12_000, {"async_save": asynchronous})
    found, _, said = run_ranks(2, train_on_full_disk, *args)[0]
    assert found[-1] == [3, 4, 5]
    assert "the checkpoint of step 6 could not be written" in said
