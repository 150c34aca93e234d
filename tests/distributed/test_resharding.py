"""A checkpoint is loaded on any number of ranks and at any ZeRO stage, to the last bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from megapt.checkpoint.state import checkpoint_path
from megapt.distributed.ranks import Ranks
from megapt.distributed.resharding import load_engine
from megapt.distributed.shards import WEIGHT
from megapt.errors import ConfigError
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

# (ZeRO stage, ranks) that save -> (ZeRO stage, ranks) that load
PAIRS = [
    ((0, 1), (1, 2)),
    ((0, 2), (3, 2)),
    ((1, 2), (0, 1)),
    ((1, 2), (2, 1)),
    ((2, 1), (3, 2)),
    ((2, 2), (2, 1)),
    ((3, 2), (0, 2)),
    ((3, 2), (1, 1)),
    ((3, 1), (3, 2)),
]


def resave(ranks: Ranks, source: Path, target: Path, stage: int, precision: str) -> None:
    """Load the newest checkpoint of a run, and save it as another run's first."""
    config = settings(stage, precision)
    checkpoints = checkpoints_of(source, ranks)
    saved = checkpoints.newest()
    assert saved is not None
    engine = make_engine(ranks, config)
    checkpoints.load(saved, engine)
    checkpoints_of(target, ranks).save(engine, state_of(saved.step, ranks, config))
    engine.close()


@pytest.mark.parametrize(
    ("source", "target", "precision"),
    [*((*pair, "fp32") for pair in PAIRS), *((*pair, "bf16") for pair in PAIRS[3:7])],
    ids=str,
)
def test_nothing_changes_on_the_way(
    tmp_path: Path, source: tuple[int, int], target: tuple[int, int], precision: str
) -> None:
    """Weights in float32, moments and counts of updates are the same, bit for bit."""
    (stage, world), (other, others) = source, target
    run_ranks(world, train, tmp_path / "a", settings(stage, precision), 3, 3)
    run_ranks(others, resave, tmp_path / "a", tmp_path / "b", other, precision)
    before, after = (states_of(checkpoint_path(tmp_path / run, 3)) for run in "ab")
    assert before.keys() == after.keys()
    parameters = dict(Model().named_parameters())
    assert {name for name, _ in before} == parameters.keys()
    assert {key for _, key in before} == {WEIGHT, "exp_avg", "exp_avg_sq", "step"}
    for name, key in before:
        assert torch.equal(before[name, key], after[name, key]), (name, key)
        if key == "step":
            assert before[name, key] == 3
        else:
            assert before[name, key].shape == parameters[name].shape


@pytest.mark.parametrize(("source", "target"), PAIRS[::2], ids=str)
def test_training_goes_on_as_if_unbroken(
    tmp_path: Path, source: tuple[int, int], target: tuple[int, int]
) -> None:
    (stage, world), (other, others) = source, target
    whole = run_ranks(others, train, tmp_path / "whole", settings(other), 6, 100)[0]
    first = run_ranks(world, train, tmp_path / "run", settings(stage), 3, 3)[0]
    second = run_ranks(others, train, tmp_path / "run", settings(other), 6, 100)[0]
    assert first + second == pytest.approx(whole, rel=1e-6)


MOVED = {
    name: torch.tensor(rows)
    for name, rows in {
        "words.weight": [3, 4, 5, 0, 1, 2, 9, 10, 6, 7, 8],
        "hidden.weight": [6, 0, 1, 5, 4, 2, 3],
        "hidden.bias": [6, 0, 1, 5, 4, 2, 3],
    }.items()
}
"""Name of a parameter -> place of each row in the files."""


def resave_moved(ranks: Ranks, source: Path, target: Path, stage: int) -> None:
    """Load a checkpoint whose rows lie elsewhere, and save it as another run's first."""
    config = settings(stage)
    engine = make_engine(ranks, config)
    engine.load_state(source, MOVED)
    checkpoints_of(target, ranks).save(engine, state_of(3, ranks, config))
    engine.close()


@pytest.mark.parametrize(
    ("source", "target"),
    [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((2, 2), (2, 2)), ((3, 2), (3, 2)), ((2, 2), (3, 1))],
    ids=str,
)
def test_rows_that_lie_elsewhere_are_put_in_their_places(
    tmp_path: Path, source: tuple[int, int], target: tuple[int, int]
) -> None:
    """Weights and moments, at every stage, bit for bit; also on the ranks that wrote them."""
    (stage, world), (other, others) = source, target
    run_ranks(world, train, tmp_path / "a", settings(stage), 3, 3)
    path = checkpoint_path(tmp_path / "a", 3)
    run_ranks(others, resave_moved, path, tmp_path / "b", other)
    before, after = (states_of(checkpoint_path(tmp_path / run, 3)) for run in "ab")
    assert before.keys() == after.keys()
    for name, key in before:
        expected = before[name, key]
        if name in MOVED and key != "step":
            expected = expected[MOVED[name]]
        assert torch.equal(after[name, key], expected), (name, key)


def test_rows_of_states_on_nvme_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "offloaded_tensors").mkdir()
    engine = SimpleNamespace(
        zero_optimization_stage=lambda: 0,
        seq_dp_world_size=1,
        zero_nvme_offload_optimizer=lambda: True,
    )
    with pytest.raises(ConfigError, match="states on NVMe cannot be reordered") as error:
        load_engine(engine, tmp_path, MOVED)
    assert str(tmp_path) in str(error.value)


def go_back(ranks: Ranks, folder: Path, stage: int, precision: str) -> list[list[float]]:
    """Train four steps; go back to the second in the same engine; return the losses of both."""
    config = settings(stage, precision)
    engine = make_engine(ranks, config)
    checkpoints = checkpoints_of(folder, ranks)
    advance(engine, ranks, 1, 2)
    checkpoints.save(engine, state_of(2, ranks, config))
    first = advance(engine, ranks, 3, 5)
    saved = checkpoints.newest()
    assert saved is not None
    checkpoints.load(saved, engine)
    second = advance(engine, ranks, 3, 5)
    engine.close()
    return [first, second]


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")]
)
def test_a_running_engine_goes_back(tmp_path: Path, stage: int, precision: str) -> None:
    first, second = run_ranks(2, go_back, tmp_path, stage, precision)[0]
    assert first == second


def load_refused(ranks: Ranks, folder: Path, stage: int) -> str:
    """Return why the newest checkpoint cannot be loaded."""
    checkpoints = checkpoints_of(folder, ranks)
    saved = checkpoints.newest()
    assert saved is not None
    engine = make_engine(ranks, settings(stage))
    with pytest.raises(ConfigError) as error:
        checkpoints.load(saved, engine)
    return str(error.value)


def retrain(ranks: Ranks, folder: Path) -> None:
    """Save a checkpoint whose optimizer has a state that is neither a number nor elementwise."""
    config = settings(0)
    engine = make_engine(ranks, config)
    advance(engine, ranks, 1, 1)
    for parameter, state in engine._engine.optimizer.state.items():
        state["row_var"] = torch.ones(parameter.shape[0], 3)
    checkpoints_of(folder, ranks).save(engine, state_of(1, ranks, config))


def test_states_that_cannot_be_spread_are_refused_in_one_line(tmp_path: Path) -> None:
    run_ranks(1, retrain, tmp_path)
    [said, other] = run_ranks(2, load_refused, tmp_path, 2)
    assert said == other
    for part in ("'row_var'", "parallel.zero_stage"):
        assert part in said
