"""Branches: what is refused, and that the others are plain runs without their first steps."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from megapt.checkpoint.state import TrainerState
from megapt.config import Origins, RunConfig
from megapt.data import LoaderState
from megapt.data.budget import Spent
from megapt.errors import ConfigError
from megapt.training.branch import check_branch
from tests.ranks import run_ranks
from tests.training.runs import (
    last_weights,
    merged,
    records_of,
    run_config,
    train,
    train_with_signal,
    without_clock,
)

STABLE = 16 * 384.0
"""Budget of the parent, in tokens: 16 steps of 8 windows, but for the first 8 in 2 of 4."""


def job(corpus: Path, output: Path, budget: float, decay: float, **sections: Any) -> RunConfig:
    """A `wsd` run. Its shares make the same steps of any budget: 2 of warm-up, 2 of small batches
    and 3 of short texts.
    """
    one = STABLE / budget / 16
    usual = {
        "objective": {"name": "mlm"},
        "model": {"dropout": 0.1},
        "schedule": {
            "name": "wsd",
            "warmup_ratio": 2 * one,
            "decay_ratio": decay,
            "batch_size_rampup": [{"until": one, "global_batch_size": 4}],
            "window_rampup": [{"until": 2 * one, "length": 16}],
        },
        "checkpoint": {"every": 5, "keep_last": 9},
        "training": {"budget": {"amount": budget}, "validate_every": 4},
    }
    return run_config(corpus, output, **merged(usual, sections))


@pytest.fixture(scope="module")
def parent(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that never decays."""
    config = job(corpus_folder, tmp_path_factory.mktemp("parent") / "run", STABLE, 0.0)
    run_ranks(1, train, config)
    return config


# Budgets in steps of 8 windows; two decays begin after the branch, the last one with it.
@pytest.mark.parametrize(
    ("budget", "decay", "step"), [(8, 0.375, 5), (16, 0.25, 10), (32, 0.5, None)]
)
def test_a_branch_is_a_plain_run_without_its_first_steps(
    parent: RunConfig,
    corpus_folder: Path,
    tmp_path: Path,
    budget: int,
    decay: float,
    step: int | None,
) -> None:
    """A budget of a power of two of the parent's, so that no share is rounded differently."""
    shape = {"schedule": {"decay_shape": "sqrt" if step == 10 else "linear"}}
    plain = job(corpus_folder, tmp_path / "plain", budget * 384.0, decay, **shape)
    whence = {"run": parent.output, "step": step}
    branch = job(corpus_folder, tmp_path / "branch", budget * 384.0, decay, **shape, branch=whence)
    run_ranks(1, train, plain)
    if step == 5:  # stopped once, too, and so resumed from a checkpoint of its own
        assert run_ranks(1, train_with_signal, branch, signal.SIGTERM, 7) == [None]
    run_ranks(1, train, branch)
    found = without_clock(records_of(branch))
    first = step or 17
    assert found == [r for r in without_clock(records_of(plain)) if r["step"] > first]
    assert found[0]["step"] == first + 1
    mine, theirs = last_weights(branch), last_weights(plain)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def state(step: int = 9, windows: int = 64, tokens: float = 64 * 48.0) -> TrainerState:
    """Where the parent stands after 9 steps, by default."""
    return TrainerState(
        step=step,
        spent=Spent(raw_tokens=tokens).as_dict(),
        ranks=1,
        zero_stage=0,
        precision="fp32",
        data=LoaderState({}, windows),
        validation=LoaderState({}),
    )


def described(**sections: Any) -> RunConfig:
    """A branch of half the parent's budget, `sections` changed; it begins where that is spent."""
    whence = {"branch": {"run": "run"}}
    return job(Path("corpus"), Path("branch"), STABLE, 0.5, **merged(whence, sections))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": {"micro_batch_size": 4}, "parallel": {"zero_stage": 1}},
        {"schedule": {"min_lr_ratio": 0.0, "decay_shape": "sqrt", "decay_ratio": 0.1}},
        {"schedule": {"name": "constant"}},
        # The same stage in two parts, and larger batches from the branch on.
        {
            "schedule": {
                "batch_size_rampup": [
                    {"until": 1 / 32, "global_batch_size": 4},
                    {"until": 1 / 16, "global_batch_size": 4},
                    {"until": 0.5, "global_batch_size": 8},
                ]
            },
            "training": {"global_batch_size": 16},
        },
    ],
)
def test_what_may_differ_in_a_branch(changes: dict[str, Any]) -> None:
    stable = job(Path("corpus"), Path("run"), STABLE, 0.0)
    check_branch(stable, described(**changes), state(), Origins())


def test_a_branch_may_count_its_budget_on_another_axis() -> None:
    stable = run_config(
        Path("corpus"), Path("run"), schedule={"name": "constant", "warmup_ratio": 0.0}
    )
    branch = run_config(
        Path("corpus"),
        Path("branch"),
        schedule={"name": "wsd", "warmup_ratio": 0.0},
        training={"budget": {"axis": "targets", "amount": 1e6}},
        branch={"run": "run"},
    )
    check_branch(stable, branch, state(8), Origins())


@pytest.mark.parametrize(
    ("changes", "spent", "path", "message"),
    [
        (
            {"optimizer": {"lr": 0.02}},
            {},
            "branch.run",
            "run has optimizer.lr = 0.01, not 0.02; a branch may change the budget and the "
            "schedule, and takes all other settings from its parent",
        ),
        ({"objective": {"mask_rate": 0.2}}, {}, "branch.run", "run has objective.mask_rate = "),
        (
            {"training": {"global_batch_size": 16}},
            {},
            "schedule.batch_size_rampup",
            "the first 9 steps would differ from those of run; ",
        ),
        (
            {"schedule": {"batch_size_rampup": [{"until": 0.125, "global_batch_size": 4}]}},
            {},
            "schedule.batch_size_rampup",
            "the first 9 steps would differ from those of run; ",
        ),
        (
            {},
            {"windows": 72},
            "schedule.batch_size_rampup",
            "the first 9 steps would differ from those of run; ",
        ),
        (
            {"schedule": {"window_rampup": [{"until": 0.25, "length": 16}]}},
            {},
            "schedule.window_rampup",
            "the first 9 steps would differ from those of run; ",
        ),
        (
            {"schedule": {"decay_ratio": 0.75}},
            {},
            "schedule",
            "at step 9, 50.0% of the budget, the learning rate would jump from 1 to 0.7 of its "
            "peak; branch before run decays, and let the branch decay over at most 0.5 of its "
            "budget",
        ),
        (
            {},
            {"tokens": STABLE},
            "training.budget.amount",
            "run had spent 6,144 raw_tokens by step 9; raise the amount, or branch from an earlier "
            "step",
        ),
    ],
)
def test_what_does_not_go_on_where_the_parent_stood_is_refused(
    changes: dict[str, Any], spent: dict[str, Any], path: str, message: str
) -> None:
    stable = job(Path("corpus"), Path("run"), STABLE, 0.0)
    with pytest.raises(ConfigError) as error:
        check_branch(stable, described(**changes), state(**spent), Origins({path: "b.yaml:3"}))
    assert str(error.value).startswith(f"b.yaml:3: {path}: {message}")


def test_a_branch_of_a_decayed_run_is_refused() -> None:
    decayed = job(Path("corpus"), Path("run"), STABLE, 0.75)
    with pytest.raises(ConfigError, match=r"would jump from 0\.7 to 1 of its peak; branch before"):
        check_branch(decayed, described(), state(), Origins())
