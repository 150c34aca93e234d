"""A loss that is not finite ends the run, and no checkpoint keeps what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import TrainingError
from megapt.training import updating
from tests.ranks import run_ranks
from tests.training.runs import events_of, records_of, run_config, train

# (ranks, ZeRO stage, precision)
JOBS = [(1, 0, "fp32"), (2, 0, "fp32"), (2, 2, "fp32"), (1, 0, "bf16"), (2, 3, "bf16")]


def diverging(
    corpus: Path,
    output: Path,
    stage: int = 0,
    checkpoint: Mapping[str, int] = {"every": 0},
    **training: Any,
) -> RunConfig:
    """A run that leaves the finite numbers within three updates."""
    return run_config(
        corpus,
        output,
        optimizer={"lr": 1e30, "max_grad_norm": 0.0},
        schedule={"name": "constant", "warmup_ratio": 0.0},
        parallel={"zero_stage": stage},
        checkpoint=checkpoint,
        faults={"max_skipped_updates": 1},
        training={"budget": {"amount": 10000.0}, "validate_every": 0, **training},
    )


def train_to_failure(ranks: Ranks, config: RunConfig) -> str:
    try:
        train(ranks, config)
    except TrainingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("world", "stage", "precision"), JOBS)
def test_the_step_of_a_loss_that_is_not_finite_is_named(
    corpus_folder: Path, tmp_path: Path, world: int, stage: int, precision: str
) -> None:
    config = diverging(corpus_folder, tmp_path / "run", stage, precision=precision)
    messages = run_ranks(world, train_to_failure, config)
    *good, bad = records_of(config, "train")
    assert len(good) < 5
    assert bad["gradient_norm"] is None  # JSON has no infinity.
    for message in messages:
        assert message.startswith(f"{config.output}: step {bad['step']}: ")
        assert "optimizer.lr" in message
        assert "\n" not in message
    assert not RunFolder(config.output).finished


def test_a_loss_that_is_not_finite_is_seen_between_two_records(
    corpus_folder: Path, tmp_path: Path
) -> None:
    often = diverging(corpus_folder, tmp_path / "often")
    seldom = diverging(corpus_folder, tmp_path / "seldom", log_every=20)
    [first], [second] = (run_ranks(1, train_to_failure, config) for config in (often, seldom))
    assert first
    assert second.replace("seldom", "often") == first


def test_no_checkpoint_holds_weights_that_are_not_finite(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = diverging(
        corpus_folder, tmp_path / "run", log_every=20, checkpoint={"every": 1, "keep_last": 9}
    )
    run_ranks(1, train_to_failure, config)
    for folder in RunFolder(config.output).checkpoints.glob("step-*"):
        for name, weight in load_file(folder / "model.safetensors").items():
            assert torch.isfinite(weight).all(), (folder.name, name)


def fail_in_one_step(ranks: Ranks, config: RunConfig, step: int) -> dict[str, Any]:
    """Train with a loss that is infinite in the update `step` of the last rank alone."""
    factors, calls = updating.factors, [0]

    def spoil(*args: Any) -> dict[str, float]:
        calls[0] += 1
        ill = ranks.rank == ranks.world - 1 and calls[0] == step
        return {part: float("inf") if ill else f for part, f in factors(*args).items()}

    updating.factors = spoil
    return train(ranks, config)


@pytest.mark.parametrize(("world", "stage", "precision"), JOBS)
def test_one_gradient_that_is_not_finite_on_one_rank_is_left_out_on_all(
    corpus_folder: Path, tmp_path: Path, world: int, stage: int, precision: str
) -> None:
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        parallel={"zero_stage": stage},
        training={"precision": precision},
    )
    summaries = run_ranks(world, fail_in_one_step, config, 3)
    assert [summary["skipped_updates"] for summary in summaries] == [1] * world
    [event] = events_of(config, "skipped")
    assert event["step"] == 3
    for record in records_of(config, "train"):
        assert record["skipped_updates"] == (record["step"] >= 3)
        assert math.isfinite(record["loss"])
