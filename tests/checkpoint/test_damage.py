"""Damaged checkpoints are found, named and passed over, on all ranks alike."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megapt.checkpoint import branch_start, steps_saved
from megapt.checkpoint.manifest import FORMAT, record_of
from megapt.checkpoint.state import checkpoint_path
from megapt.config import BranchConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import MegaptError
from tests.checkpoint.engines import checkpoints_of, settings, train
from tests.ranks import run_ranks
from tests.training.damage import flip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of steps 1, 2 and 3 of two ranks."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    run_ranks(2, train, folder, settings(2), 3, 1, {"keep_last": 3})
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(run, tmp_path / "run" / "checkpoints"))


def find(ranks: Ranks, folder: Path) -> tuple[int | None, str, list[tuple[int, str, str]]]:
    """Return the step of the newest, the error, and what was passed over."""
    logging.getLogger("megapt.checkpoints").setLevel(logging.ERROR)
    checkpoints = checkpoints_of(folder, ranks)
    step, said = None, ""
    try:
        saved = checkpoints.newest()
        if saved is not None:
            step = saved.step
            assert saved.state.step == step
    except MegaptError as error:
        said = f"{type(error).__name__}: {error}"
    return step, said, [(each.step, each.kind, each.text) for each in checkpoints.take_events()]


def cut(file: Path) -> None:
    """Take the last bytes away."""
    file.write_bytes(file.read_bytes()[:-3])


FILES = [
    "mp_rank_00_model_states.pt",
    "zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "model.safetensors",
    "trainer.json",
]


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *itertools.product(FILES, [flip, cut, Path.unlink]),
        *itertools.product(["checkpoint.json"], [cut, Path.unlink]),
    ],
)
def test_a_damaged_file_makes_all_ranks_go_back_to_the_one_before(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(checkpoint_path(folder, 3) / name)
    mine, theirs = run_ranks(2, find, folder)
    assert mine == theirs
    step, said, [(damaged, kind, text)] = mine
    assert (step, said, damaged, kind) == (2, "", 3, "damaged")
    assert str(checkpoint_path(folder, 3)) in text
    assert name in text


def test_what_lies_beyond_a_damaged_one_is_replaced_as_the_run_comes_by(folder: Path) -> None:
    for step in (2, 3):
        flip(checkpoint_path(folder, step) / "trainer.json")
    losses = run_ranks(2, train, folder, settings(2), 3, 2, {"keep_last": 3})[0]
    assert len(losses) == 2
    assert steps_saved(folder) == [1, 2]  # The third is of steps that were done again.
    assert run_ranks(2, find, folder)[0][0] == 2


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(folder: Path) -> None:
    for step in (1, 2, 3):
        flip(checkpoint_path(folder, step) / "model.safetensors")
    step, said, events = run_ranks(1, find, folder)[0]
    assert step is None
    assert said.startswith("DamagedError: ")
    for part in (str(folder), "model.safetensors is corrupt", "to start from scratch"):
        assert part in said
    assert [number for number, _, _ in events] == [3, 2, 1]


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert run_ranks(2, find, tmp_path / "nothing") == [(None, "", [])] * 2


def test_checkpoints_of_an_earlier_version_are_refused_in_one_line(folder: Path) -> None:
    for step in (1, 2, 3):
        (checkpoint_path(folder, step) / "checkpoint.json").unlink()
    step, said, _ = run_ranks(1, find, folder)[0]
    assert step is None
    assert "has no checkpoint.json; corrupt, or of an earlier megapt" in said


@pytest.mark.parametrize("name", ["checkpoint.json", "trainer.json"])
def test_a_later_version_is_refused_and_not_passed_over(folder: Path, name: str) -> None:
    """Its checkpoint is whole; to begin before it would throw away what was computed."""
    path = checkpoint_path(folder, 3)
    manifest = json.loads((path / "checkpoint.json").read_text())
    if name == "checkpoint.json":
        manifest["format"] = FORMAT + 1
    else:
        state = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({**state, "new": 1}))
        manifest["files"][name] = record_of(path / name).model_dump()
    (path / "checkpoint.json").write_text(json.dumps(manifest))
    mine, theirs = run_ranks(2, find, folder)
    assert mine == theirs
    assert mine[0] is None
    assert str(path) in mine[1]
    assert mine[1].startswith("ConfigError: ")
    assert "version" in mine[1] or f"format {FORMAT + 1}" in mine[1]


def begin_branch(ranks: Ranks, run: Path, step: int | None) -> int | str:
    """Return the step that a branch begins with, or why it cannot."""
    logging.getLogger("megapt.checkpoints").setLevel(logging.ERROR)
    try:
        return branch_start(BranchConfig(run=str(run), step=step), ranks).step
    except MegaptError as error:
        return str(error)


def test_a_branch_begins_with_the_newest_or_with_the_step_that_is_named(folder: Path) -> None:
    run = folder.parent
    assert run_ranks(2, begin_branch, run, None) == [3, 3]
    assert run_ranks(1, begin_branch, run, 1) == [1]
    flip(checkpoint_path(folder, 3) / "trainer.json")
    assert run_ranks(1, begin_branch, run, None) == [2]
    assert "trainer.json is corrupt" in str(run_ranks(1, begin_branch, run, 3)[0])
    assert (
        run_ranks(2, begin_branch, run, 9)
        == [f"branch.step: {run} has no checkpoint of step 9; it has 1, 2, 3"] * 2
    )
    assert "there is no folder" in str(run_ranks(1, begin_branch, run / "other", None)[0])
    (run / "other").mkdir()
    for step in (None, 1):
        said = str(run_ranks(1, begin_branch, run / "other", step)[0])
        assert said == f"branch.run: {run / 'other'} has no checkpoint to start from"
