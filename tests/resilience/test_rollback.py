"""A run that cannot apply its updates goes back, and on with the text that comes next."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from megapt.checkpoint import steps_saved
from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import TrainingError
from megapt.monitoring.metrics import without_clock
from megapt.training import updating
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer
from tests.ranks import end_ranks, run_ranks
from tests.training.runs import (
    events_of,
    last_weights,
    records_of,
    run_config,
    train,
    train_with_signal,
)

BAD = (5, 6, 7)
"""Steps whose loss is not finite."""


def job(corpus: Path, output: Path, stage: int = 0) -> RunConfig:
    """A run of some fourteen steps that goes back after three updates left out."""
    return run_config(
        corpus,
        output,
        parallel={"zero_stage": stage},
        checkpoint={"every": 2},
        faults={"max_skipped_updates": len(BAD)},
        training={"budget": {"amount": 5000.0}},
    )


def spoil(trainer: Trainer) -> None:
    """Give the last rank an infinite loss in the steps of `BAD`."""
    factors, count = updating.factors, [trainer.state.step]

    def spoiled(*args: Any) -> dict[str, float]:
        count[0] += 1
        ill = count[0] in BAD and trainer.ranks.rank == trainer.ranks.world - 1
        return {part: float("inf") if ill else f for part, f in factors(*args).items()}

    updating.factors = spoiled


def train_through(ranks: Ranks, config: RunConfig) -> dict[str, Any]:
    trainer = Trainer(prepare(config, ranks, Origins()))
    spoil(trainer)
    return trainer.train()


def kill_through(ranks: Ranks, config: RunConfig, step: int) -> None:
    build = Trainer.train

    def spoiled(trainer: Trainer) -> dict[str, Any]:
        spoil(trainer)
        return build(trainer)

    Trainer.train = spoiled  # type: ignore[method-assign]
    train_with_signal(ranks, config, signal.SIGKILL, step)


@pytest.mark.parametrize(("world", "stage"), [(1, 0), (2, 2), (2, 3)])
def test_the_run_goes_back_once_and_on_after_the_text(
    corpus_folder: Path, tmp_path: Path, world: int, stage: int
) -> None:
    config = job(corpus_folder, tmp_path / "run", stage)
    summary, *_ = run_ranks(world, train_through, config)
    assert (summary["skipped_updates"], summary["rollbacks"]) == (len(BAD), 1)
    [event] = events_of(config, "rollback")
    assert (event["step"], event["to"]) == (7, 4)
    steps = [record["step"] for record in records_of(config, "train")]
    assert steps == list(range(1, summary["steps"] + 1))
    if world == 1:
        return
    # Killed before the first checkpoint after that, and after it.
    for number, step in enumerate((7, 9)):
        again = job(corpus_folder, tmp_path / f"again{number}", stage)
        outcomes, printed = end_ranks(world, kill_through, again, step)
        assert any(outcome.killed for outcome in outcomes), printed
        run_ranks(world, train_through, again)
        assert without_clock(records_of(again)) == without_clock(records_of(config))
        mine, theirs = last_weights(again), last_weights(config)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def ruin_in_step_4(ranks: Ranks, config: RunConfig) -> dict[str, Any]:
    """Train; the update of step 4 is far too large."""
    factor, count = updating.rate_factor, [0]

    def ruinous(*args: Any) -> float:
        count[0] += 1
        return 1e38 if count[0] == 4 else factor(*args)

    updating.rate_factor = ruinous
    return train(ranks, config)


def test_ruined_weights_that_were_saved_are_not_gone_back_to_twice(
    corpus_folder: Path, tmp_path: Path
) -> None:
    """An update may ruin the weights and be saved before the next one shows it."""
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        training={"budget": {"amount": 5000.0}},
        checkpoint={"every": 1, "keep_last": 2},
        faults={"max_skipped_updates": 3},
    )
    [summary] = run_ranks(1, ruin_in_step_4, config)
    gone_back = [(event["step"], event["to"]) for event in events_of(config, "rollback")]
    assert gone_back == [(7, 4), (10, 3)]
    assert summary["skipped_updates"] == 6
    *_, last = records_of(config, "train")
    assert last["loss"] == pytest.approx(records_of(config, "train")[2]["loss"], rel=0.2)


def train_to_ruin(ranks: Ranks, config: RunConfig) -> str:
    with pytest.raises(TrainingError) as error:
        train(ranks, config)
    return str(error.value)


def test_a_run_that_was_never_sound_ends(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        optimizer={"lr": 1e38, "max_grad_norm": 0.0},
        schedule={"name": "constant", "warmup_ratio": 0.0},
        training={"budget": {"amount": 1e5}},
        checkpoint={"every": 1},
        faults={"max_skipped_updates": 3},
    )
    [said] = run_ranks(1, train_to_ruin, config)
    assert said.startswith(f"{config.output}: step 7: 3 updates in a row were skipped, and there ")
    assert "no other checkpoint to roll back to" in said
    assert steps_saved(RunFolder(config.output).checkpoints) == [1]
