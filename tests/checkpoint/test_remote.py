"""Checkpoints are copied elsewhere and brought back."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from megapt.checkpoint import steps_saved
from megapt.checkpoint.manifest import read_manifest
from megapt.checkpoint.remote import Copier, Copies
from megapt.checkpoint.state import checkpoint_path
from megapt.config import CheckpointConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import MegaptError
from tests.checkpoint.engines import (
    advance,
    checkpoints_of,
    make_engine,
    settings,
    state_of,
    train,
)
from tests.ranks import run_ranks
from tests.training.damage import flip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of steps 1 and 2 of a run."""
    folder = tmp_path_factory.mktemp("run")
    run_ranks(2, train, folder, settings(2), 2, 1, {"keep_last": 2})
    return folder


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_run_goes_on_elsewhere_from_its_copies(
    tmp_path: Path, scheme: str, asynchronous: bool
) -> None:
    copies = tmp_path / "far" / "away"
    checkpoint = {
        "copy_to": f"{scheme}{copies}",
        "async_save": asynchronous,
        "keep_last": 1,
        "keep_every": 3,
    }
    run_ranks(2, train, tmp_path / "here", settings(2), 5, 1, checkpoint)
    assert steps_saved(tmp_path / "here") == [3, 5]
    assert steps_saved(copies) in ([3, 5], [5])  # Copies may skip what came too quickly.
    losses = run_ranks(1, train, tmp_path / "there", settings(0), 6, 1, checkpoint)[0]
    whole = run_ranks(1, train, tmp_path / "whole", settings(0), 6, 9)[0]
    assert losses == pytest.approx(whole[5:], rel=1e-6)
    assert steps_saved(copies)[-1] == 6


@pytest.mark.parametrize("where", ["folder", "memory://bucket/run"])
def test_a_copy_is_whole_or_it_is_not_one(run: Path, tmp_path: Path, where: str) -> None:
    copies = Copies(where if "://" in where else str(tmp_path / where))
    assert copies.steps() == []
    for step in (1, 2):
        path = checkpoint_path(run, step)
        copies.put(path, step, read_manifest(path))
    assert copies.steps() == [1, 2]
    copies.get(1, tmp_path / "step-00000001")
    for file in checkpoint_path(run, 1).iterdir():
        assert (tmp_path / "step-00000001" / file.name).read_bytes() == file.read_bytes()
    copies.prune(CheckpointConfig(keep_last=1), 2)
    assert copies.steps() == [2]


def failing_at(count: int, copies: Copies) -> None:
    """Make the `count`-th file that is put there fail."""
    put_file, left = copies._system.put_file, [count]

    def put_or_fail(*args: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise ConnectionError("the line is dead\nand so on")
        put_file(*args)

    copies._system.put_file = put_or_fail


@pytest.mark.parametrize("count", [1, 6])
def test_a_copy_that_fails_is_told_and_is_none(run: Path, tmp_path: Path, count: int) -> None:
    """At its first file, and at its manifest."""
    copies = Copies(str(tmp_path / "copies"))
    failing_at(count, copies)
    told: list[tuple[int, str]] = []
    copier = Copier(copies, CheckpointConfig(), False, lambda *event: told.append(event))
    try:
        copier.copy(2, checkpoint_path(run, 2), read_manifest(checkpoint_path(run, 2)))
        assert told == [(2, f"{tmp_path / 'copies'}: ConnectionError: the line is dead")]
        assert copies.steps() == []
        copier.copy(1, checkpoint_path(run, 1), read_manifest(checkpoint_path(run, 1)))
        assert copies.steps() == [1]
    finally:
        del copies._system.put_file  # fsspec hands the same file system to others


def test_while_one_is_copied_the_newest_of_those_that_come_waits(run: Path, tmp_path: Path) -> None:
    copies = Copies(str(tmp_path / "copies"))
    begun, free, put = threading.Event(), threading.Event(), copies.put

    def wait_and_put(*args: Any) -> None:
        begun.set()
        assert free.wait(60)
        put(*args)

    copies.put = wait_and_put  # type: ignore[method-assign, assignment]
    copier = Copier(copies, CheckpointConfig(keep_last=9), True, print)
    manifest = read_manifest(checkpoint_path(run, 1))
    for step in (1, 2, 3):
        copier.copy(step, checkpoint_path(run, 1), manifest)
        assert begun.wait(60)
    assert copier.busy == {1, 3}
    free.set()
    copier.finish()
    assert copies.steps() == [1, 3]
    assert copier.busy == set()


def save_to_nowhere(ranks: Ranks, folder: Path, copy_to: str) -> list[tuple[int, str]]:
    """Save two steps; return the events."""
    logging.getLogger("megapt.checkpoints").setLevel(logging.ERROR)
    config = settings(0)
    engine = make_engine(ranks, config)
    checkpoints = checkpoints_of(folder, ranks, copy_to=copy_to)
    for step in (1, 2):
        advance(engine, ranks, step, step)
        checkpoints.save(engine, state_of(step, ranks, config))
    checkpoints.finish()
    return [(event.step, event.kind) for event in checkpoints.take_events()]


def test_training_does_not_depend_on_the_copies(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    copy_to = str(tmp_path / "file" / "copies")
    mine, theirs = run_ranks(2, save_to_nowhere, tmp_path / "run", copy_to)
    assert mine == [(1, "uncopied"), (2, "uncopied")]
    assert theirs == []
    assert steps_saved(tmp_path / "run") == [1, 2]


def find(ranks: Ranks, folder: Path, copy_to: str) -> tuple[int | None, list[int], str]:
    """Return the newest step, the steps passed over, and the error."""
    logging.getLogger("megapt.checkpoints").setLevel(logging.ERROR)
    try:
        checkpoints = checkpoints_of(folder, ranks, copy_to=copy_to)
        saved = checkpoints.newest()
    except MegaptError as error:
        return None, [], f"{type(error).__name__}: {error}"
    step = None if saved is None else saved.step
    return step, [event.step for event in checkpoints.take_events()], ""


def test_a_damaged_copy_is_passed_over(run: Path, tmp_path: Path) -> None:
    copies = Path(shutil.copytree(run, tmp_path / "copies"))
    flip(checkpoint_path(copies, 2) / "model.safetensors")
    mine, theirs = run_ranks(2, find, tmp_path / "run", str(copies))
    assert (mine[0], theirs[0]) == (1, 1)
    assert mine[1] == [2]
    assert steps_saved(tmp_path / "run") == [1]


def test_a_run_whose_own_are_damaged_takes_a_copy(run: Path, tmp_path: Path) -> None:
    here = Path(shutil.copytree(run, tmp_path / "here"))
    for step in (1, 2):
        flip(checkpoint_path(here, step) / "trainer.json")
    [[step, passed_over, said]] = run_ranks(1, find, here, str(run))
    assert (step, passed_over, said) == (2, [2, 1], "")
    assert steps_saved(here) == [1, 2]


def test_a_place_that_cannot_be_read_does_not_begin_the_run_anew(tmp_path: Path) -> None:
    places = {"nonsense://bucket/run": "ConfigError", "http://127.0.0.1:9/run": "UnavailableError"}
    for copy_to, kind in places.items():
        [[step, _, said]] = run_ranks(1, find, tmp_path / "run", copy_to)
        assert step is None
        assert said.startswith(f"{kind}: checkpoint.copy_to: ")
        assert copy_to in said
