"""Checkpoints appear whole, are kept by policy, and are the same in the background."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megapt.checkpoint import load_weights, steps_saved, writing
from megapt.checkpoint.state import checkpoint_path
from megapt.distributed.ranks import Ranks
from tests.checkpoint.engines import (
    Model,
    advance,
    checkpoints_of,
    make_engine,
    settings,
    state_of,
    states_of,
    train,
)
from tests.ranks import run_ranks


def save_while_training(
    ranks: Ranks, folder: Path, stage: int, precision: str, asynchronous: bool
) -> None:
    """Save after two steps; nothing is written in the background until two more are done."""
    config = settings(stage, precision, ema_decay=0.5)
    free = threading.Event()
    write = torch.save

    def wait_and_write(*args: Any) -> None:
        free.wait(60)
        write(*args)

    writing.torch.save = wait_and_write  # type: ignore[attr-defined]
    if not asynchronous:
        free.set()
    engine = make_engine(ranks, config)
    checkpoints = checkpoints_of(folder, ranks, async_save=asynchronous)
    advance(engine, ranks, 1, 2)
    checkpoints.save(engine, state_of(2, ranks, config))
    checkpoints.settle(not ranks.any(not checkpoints.poll()))
    assert steps_saved(folder) == ([] if asynchronous else [2])
    advance(engine, ranks, 3, 4)
    free.set()
    while asynchronous and not checkpoints.poll():
        time.sleep(0.01)
    ranks.barrier()
    checkpoints.settle(not ranks.any(not checkpoints.poll()))
    assert steps_saved(folder) == [2]
    engine.close()


def assert_same(mine: Any, theirs: Any) -> None:
    """Both are the same nested containers of the same tensors."""
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    elif isinstance(mine, dict):
        assert list(mine) == list(theirs)
        for key in mine:
            assert_same(mine[key], theirs[key])
    elif isinstance(mine, (list, tuple)):
        assert len(mine) == len(theirs)
        for each, other in zip(mine, theirs, strict=True):
            assert_same(each, other)
    else:
        assert repr(vars(mine) if hasattr(mine, "__dict__") else mine) == repr(
            vars(theirs) if hasattr(theirs, "__dict__") else theirs
        )


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")]
)
def test_what_is_written_while_training_goes_on_is_what_was_saved(
    tmp_path: Path, stage: int, precision: str
) -> None:
    run_ranks(2, save_while_training, tmp_path / "a", stage, precision, True)
    run_ranks(2, save_while_training, tmp_path / "b", stage, precision, False)
    mine, theirs = (checkpoint_path(tmp_path / run, 2) for run in "ab")
    names = sorted(path.name for path in mine.iterdir())
    assert names == sorted(path.name for path in theirs.iterdir())
    assert sum(name.endswith(".pt") for name in names) == {0: 1, 3: 4}.get(stage, 3)
    assert_same(states_of(mine), states_of(theirs))
    for name in names:
        if name.endswith(".safetensors"):
            assert_same(*(load_file(path / name) for path in (mine, theirs)))
        elif name == "trainer.json":
            assert (mine / name).read_bytes() == (theirs / name).read_bytes()
        # At stage 3 what pads DeepSpeed's flat tensors is whatever the memory held.
        elif name.endswith(".pt") and not (stage == 3 and "optim" in name):
            assert_same(*(torch.load(path / name, weights_only=False) for path in (mine, theirs)))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_run_in_the_background_is_the_same_run(tmp_path: Path, asynchronous: bool) -> None:
    checkpoint = {"async_save": asynchronous, "keep_last": 2}
    run_ranks(2, train, tmp_path / "a", settings(2), 5, 1, checkpoint)
    assert steps_saved(tmp_path / "a") == [4, 5]
    losses = run_ranks(2, train, tmp_path / "a", settings(2), 7, 1, checkpoint)[0]
    whole = run_ranks(2, train, tmp_path / "b", settings(2), 7, 100)[0]
    assert losses == whole[5:]
    assert [path.name for path in (tmp_path / "a").iterdir() if path.name[0] == "."] == []


def save_with_scores(ranks: Ranks, folder: Path, scores: list[float | None]) -> list[list[int]]:
    """Save after each step with these scores; return what there is after each."""
    config = settings(0)
    engine = make_engine(ranks, config)
    checkpoints = checkpoints_of(folder, ranks, keep_last=1, keep_every=4, keep_best=1)
    found = []
    for step, score in enumerate(scores, start=1):
        checkpoints.save(engine, state_of(step, ranks, config), score)
        found.append(steps_saved(folder))
    return found


def test_the_last_the_best_and_every_so_many_are_kept(tmp_path: Path) -> None:
    scores = [3.0, 2.0, float("nan"), 2.5, None, 1.0, 1.0]
    [found] = run_ranks(1, save_with_scores, tmp_path, scores)
    assert found == [[1], [2], [2, 3], [2, 4], [2, 4, 5], [4, 6], [4, 6, 7]]
    manifest = json.loads((checkpoint_path(tmp_path, 6) / "checkpoint.json").read_text())
    assert manifest["score"] == 1.0
    assert manifest["files"].keys() == {
        path.name for path in checkpoint_path(tmp_path, 6).iterdir()
    } - {"checkpoint.json"}


def save_same_state(ranks: Ranks, folder: Path) -> list[int]:
    """Save one state twice; return when the files were written."""
    config = settings(0)
    engine = make_engine(ranks, config)
    times = []
    for _ in range(2):  # As another process would.
        checkpoints = checkpoints_of(folder, ranks)
        if saved := checkpoints.newest():
            checkpoints.load(saved, engine)
        checkpoints.save(engine, state_of(1, ranks, config))
        checkpoints.finish()
        times.append((checkpoint_path(folder, 1) / "trainer.json").stat().st_mtime_ns)
    return times


def test_a_state_that_is_saved_already_is_not_saved_again(tmp_path: Path) -> None:
    [[first, second]] = run_ranks(1, save_same_state, tmp_path)
    assert first == second


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_plain_weights_are_those_of_the_engine_or_their_average(tmp_path: Path, stage: int) -> None:
    run_ranks(2, train, tmp_path / "a", settings(stage), 3, 3)
    run_ranks(2, train, tmp_path / "b", settings(stage, ema_decay=0.9), 3, 3)
    model, average = Model(), Model()
    assert load_weights(tmp_path / "a", model, settings(0).model) == 3
    assert load_weights(tmp_path / "b", average, settings(0).model, step=3) == 3
    assert model.out.weight is model.words.weight
    assert not torch.equal(model.words.weight, average.words.weight)
    # A later use of the run goes on from the average; training goes on from the weights.
    losses = [
        run_ranks(1, train, tmp_path / run, settings(0, ema_decay=decay), 4, 9)[0]
        for run, decay in (("a", 0.0), ("b", 0.9))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
