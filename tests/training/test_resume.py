"""A run that was stopped and started again leaves what it would have left unbroken."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from megapt.checkpoint import manifest
from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import steps_saved
from megapt.config import Origins, RunConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import RunInterrupted
from megapt.training import trainer
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer
from tests.ranks import end_ranks, run_ranks
from tests.training.runs import (
    before_step,
    last_weights,
    records_of,
    run_config,
    train,
    train_with_signal,
    without_clock,
)

SIGTERM, SIGINT, SIGKILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL

# (ranks, ZeRO stage, precision)
JOBS = [(1, 0, "fp32"), (1, 2, "bf16"), (2, 0, "fp32"), (2, 2, "fp32"), (2, 3, "bf16")]


def job(
    corpus: Path,
    output: Path,
    stage: int = 0,
    precision: str = "fp32",
    checkpoint: Mapping[str, int] = {"every": 2},
    **training: Any,
) -> RunConfig:
    """A run whose every part could lose its state: dropout, moments, accumulation, schedule."""
    return run_config(
        corpus,
        output,
        objective={"name": "bert"},
        model={"dropout": 0.1},
        parallel={"zero_stage": stage},
        checkpoint=checkpoint,
        training={"precision": precision, **training},
    )


def assert_same_run(found: RunConfig, expected: RunConfig) -> None:
    """Metrics, weights and summary are equal, bit for bit."""
    assert without_clock(records_of(found)) == without_clock(records_of(expected))
    mine, theirs = last_weights(found), last_weights(expected)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    summaries = [RunFolder(config.output).summary() for config in (found, expected)]
    for summary in summaries:
        del summary["tokens_per_second"], summary["spent"]["wall_clock"]
    assert summaries[0] == summaries[1]


def kill_at(ranks: Ranks, config: RunConfig, step: int) -> None:
    """Train until SIGKILL in update `step`."""
    train_with_signal(ranks, config, SIGKILL, step)


def kill_in_checkpoint(ranks: Ranks, config: RunConfig, number: int) -> None:
    """Train until SIGKILL within checkpoint `number`, all files written but their list."""
    write, left = manifest.write_json, [number]

    def write_or_die(file: Path, value: Any) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), SIGKILL)
        write(file, value)

    manifest.write_json = write_or_die
    train(ranks, config)


def kill_before_summary(ranks: Ranks, config: RunConfig) -> None:
    """Train until SIGKILL after the last checkpoint."""
    trainer.write_json = lambda *_: os.kill(os.getpid(), SIGKILL)
    train(ranks, config)


def assert_killed(world: int, function: Any, *args: Any) -> None:
    outcomes, printed = end_ranks(world, function, *args)
    assert any(outcome.killed for outcome in outcomes), (outcomes, printed)


@pytest.fixture(scope="module", params=JOBS, ids=str)
def unbroken(
    request: pytest.FixtureRequest, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, int, str, RunConfig]:
    """Ranks, ZeRO stage and precision of a job, and its run that was never stopped."""
    world, stage, precision = request.param
    config = job(corpus_folder, tmp_path_factory.mktemp("unbroken") / "run", stage, precision)
    run_ranks(world, train, config)
    return world, stage, precision, config


@pytest.mark.parametrize("number", [SIGTERM, SIGKILL])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    unbroken: tuple[int, int, str, RunConfig],
    corpus_folder: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    world, stage, precision, whole = unbroken
    config = job(corpus_folder, tmp_path / "run", stage, precision)
    if number == SIGKILL:
        # In update 6: the records of update 5 are there already, and are written again.
        assert_killed(world, kill_at, config, 6)
        assert records_of(config)[-1]["step"] == 5
        assert steps_saved(RunFolder(config.output).checkpoints) == [2, 4]
    else:
        assert run_ranks(world, train_with_signal, config, number, 4) == [None] * world
        assert steps_saved(RunFolder(config.output).checkpoints)[-1] == 4
        assert records_of(config)[-1]["step"] == 4
    assert not RunFolder(config.output).finished
    run_ranks(world, train, config)
    assert_same_run(config, whole)


@pytest.fixture(scope="module")
def whole(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """An unbroken run on one rank."""
    config = job(corpus_folder, tmp_path_factory.mktemp("whole") / "run")
    run_ranks(1, train, config)
    return config


def test_stopped_again_and_again_before_any_update(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run")
    for _ in range(2):
        assert_killed(1, kill_at, config, 1)
    run_ranks(1, train, config)
    assert_same_run(config, whole)


def test_stopped_after_every_update(whole: RunConfig, corpus_folder: Path, tmp_path: Path) -> None:
    steps = len(records_of(whole, "train"))
    config = job(corpus_folder, tmp_path / "run", validate_every=0)
    for step in range(1, steps):
        assert run_ranks(1, train_with_signal, config, SIGTERM, step) == [None]
    run_ranks(1, train, config)
    assert without_clock(records_of(config, "train")) == without_clock(records_of(whole, "train"))


def test_stopped_where_a_validation_is_due(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run")
    assert run_ranks(1, train_with_signal, config, SIGTERM, 3) == [None]
    run_ranks(1, train, config)
    assert_same_run(config, whole)


def test_a_signal_in_the_last_update_loses_nothing(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run")
    run_ranks(1, train_with_signal, config, SIGTERM, len(records_of(whole, "train")))
    run_ranks(1, train, config)
    assert_same_run(config, whole)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("keep", [1, 2])
def test_killed_while_a_checkpoint_is_written(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path, number: int, keep: int
) -> None:
    config = job(corpus_folder, tmp_path / "run", checkpoint={"every": 2, "keep_last": keep})
    assert_killed(1, kill_in_checkpoint, config, number)
    folder = RunFolder(config.output).checkpoints
    assert steps_saved(folder) == [2][: number - 1]
    run_ranks(1, train, config)
    assert_same_run(config, whole)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_killed_between_the_last_checkpoint_and_the_summary(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run")
    assert_killed(1, kill_before_summary, config)
    run_ranks(1, train, config)
    assert_same_run(config, whole)


def test_killed_before_the_folder_was_a_run(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    """The configuration is written last; a folder with the rest alone may be taken up."""
    config = job(corpus_folder, tmp_path / "run")
    (tmp_path / "run").mkdir()
    for name in ("corpus.json", "tokenizer.model", "environment.json"):
        (tmp_path / "run" / name).write_bytes((Path(whole.output) / name).read_bytes())
    run_ranks(1, train, config)
    assert_same_run(config, whole)


def test_a_metrics_line_cut_by_a_crash_is_written_anew(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run")
    assert_killed(1, kill_at, config, 6)
    file = RunFolder(config.output).metrics_file
    file.write_text(file.read_text()[:-20])
    run_ranks(1, train, config)
    assert_same_run(config, whole)


def test_what_does_not_touch_the_result_may_change_on_resume(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run")
    assert run_ranks(1, train_with_signal, config, SIGTERM, 4) == [None]
    changed = job(
        corpus_folder, tmp_path / "run", checkpoint={"every": 5, "keep_last": 1}, log_every=2
    )
    run_ranks(1, train, changed.model_copy(update={"output": f"{tmp_path}/./run"}))
    found, expected = records_of(config, "train")[-1], records_of(whole, "train")[-1]
    assert without_clock([found]) == without_clock([expected])


def interrupt_all(ranks: Ranks, config: RunConfig) -> bool:
    """Send SIGINT to this rank and its loader process at once, as Ctrl-C in a terminal does."""
    run = Trainer(prepare(config, ranks, Origins()))
    before_step(run.prepared, 3, lambda: os.killpg(0, SIGINT))
    try:
        run.train()
    except RunInterrupted:
        return True
    return False


def test_an_interrupt_that_reaches_the_loader_processes_too(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = job(corpus_folder, tmp_path / "run", validate_every=0)
    loaded = config.data.model_copy(update={"num_workers": 1})
    assert run_ranks(1, interrupt_all, config.model_copy(update={"data": loaded})) == [True]
    run_ranks(1, train, config)
    assert without_clock(records_of(config, "train")) == without_clock(records_of(whole, "train"))


def train_by_start_method(ranks: Ranks, config: RunConfig, method: str) -> Any:
    multiprocessing.set_start_method(method, force=True)
    return train(ranks, config)


def test_loader_processes_do_not_depend_on_how_python_starts_them(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    """From Python 3.14 on, `forkserver` is the default."""
    config = job(corpus_folder, tmp_path / "run")
    loaded = config.data.model_copy(update={"num_workers": 1})
    config = config.model_copy(update={"data": loaded})
    run_ranks(1, train_by_start_method, config, "forkserver")
    assert_same_run(config, whole)


def test_state_of_the_trainer_is_plain_json(whole: RunConfig) -> None:
    *_, newest = sorted(RunFolder(whole.output).checkpoints.glob("step-*"))
    state = json.loads((newest / "trainer.json").read_text())
    assert state["step"] == len(records_of(whole, "train"))
    assert state["ranks"] == 1
