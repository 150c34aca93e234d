"""The moving average of the weights, at every stage, against one kept by hand."""

from __future__ import annotations

import math
from contextlib import closing, suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from megapt.config import RunConfig
from megapt.distributed.averaging import decay_after
from megapt.distributed.master_weights import master_weights
from megapt.distributed.ranks import Ranks
from tests.distributed.engines import (
    Step,
    TinyModel,
    Weights,
    as_array,
    examples,
    far_apart,
    full_weights,
    one_step,
    tiny_config,
    tiny_engine,
    train_tiny,
)
from tests.ranks import run_ranks

DECAY = 0.3
PLAN = [Step(0), Step(1, skip=True), Step(2, 2), Step(3, poison=math.nan), Step(4), Step(5)]
STAGES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (2, "bf16"), (3, "bf16")]


def averaging(stage: int, precision: str = "fp32", **parallel: str) -> RunConfig:
    return tiny_config(
        training={"precision": precision},
        parallel={"zero_stage": stage, **parallel},
        optimizer={"ema_decay": DECAY, "eps": 1e-4},
    )


@cache
def by_hand(precision: str) -> Weights:
    """The average of the weights of one rank, in float64."""
    config = tiny_config(training={"precision": precision}, optimizer={"eps": 1e-4})
    wanted = [step for step in PLAN if not step.skip and step.poison is None]
    [trained] = run_ranks(1, train_tiny, config, wanted)
    model = TinyModel().to(torch.bfloat16 if precision == "bf16" else torch.float32).float()
    average = {name: as_array(p).astype(np.float64) for name, p in model.named_parameters()}
    for updates, weights in enumerate(trained.weights):
        kept = min(DECAY, (1 + updates) / (10 + updates))
        for name, weight in weights.items():
            average[name] = kept * average[name] + (1 - kept) * weight
    return {name: value.astype(np.float32) for name, value in average.items()}


def average_and_losses(ranks: Ranks, config: RunConfig) -> tuple[Weights, list[float], list[bool]]:
    """Train; return the average, the losses without, inside and after `averaged`, and checks."""

    def loss() -> float:
        with torch.no_grad():
            return float(engine(*examples(99)))

    with closing(tiny_engine(config, ranks)) as engine:
        for step in PLAN:
            one_step(engine, ranks, step, 0.05)
        before, losses = full_weights(engine), [loss()]
        with engine.averaged():
            inside = full_weights(engine)
            losses.append(loss())
        losses.append(loss())
        state = engine.average_state()
        assert state is not None
        average = {name: as_array(weight) for name, weight in state.items()}
        after = full_weights(engine)
        same = [
            average.keys() == (before.keys() if ranks.main else set()),
            all(np.array_equal(inside[name], average[name]) for name in average),
            all(np.array_equal(before[name], after[name]) for name in before),
        ]
    return inside, losses, same


@pytest.mark.parametrize(
    ("world", "stage", "precision"), [(1, 3, "fp32"), *((2, *stage) for stage in STAGES)]
)
def test_the_average_is_that_by_hand(world: int, stage: int, precision: str) -> None:
    """Updates that are left out do not count; validation inside `averaged` sees it."""
    coarse = precision == "bf16"
    for average, losses, same in run_ranks(world, average_and_losses, averaging(stage, precision)):
        assert far_apart(average, by_hand(precision)) < (0.05 if coarse else 1e-5)
        model = TinyModel().to(torch.bfloat16 if coarse else torch.float32)
        weights = {name: torch.from_numpy(weight) for name, weight in average.items()}
        model.load_state_dict(weights)
        with torch.no_grad():
            expected = float(model(*examples(99)))
        # In bfloat16, stage 3 rounds a product before it adds the bias.
        assert losses[1] == pytest.approx(expected, rel=3e-4 if coarse else 1e-6)
        assert losses[0] == losses[2]
        assert abs(losses[0] - losses[1]) > 3e-3
        assert same == [True] * 3


@pytest.mark.parametrize(
    "parallel",
    [
        {"stage": 1, "offload_optimizer": "cpu"},
        {"stage": 2, "offload_optimizer": "cpu"},
        {"stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"},
    ],
)
def test_offloaded_weights_are_averaged_where_they_are(parallel: dict[str, Any]) -> None:
    for average, losses, same in run_ranks(2, average_and_losses, averaging(**parallel)):
        assert far_apart(average, by_hand("fp32")) < 1e-5
        assert losses[0] == losses[2] != losses[1]
        assert same == [True] * 3


def fails_inside(ranks: Ranks, config: RunConfig) -> bool:
    """Whether an error of one rank, which meets no other rank again, leaves its weights right."""
    with closing(tiny_engine(config, ranks)) as engine:
        one_step(engine, ranks, Step(0), 0.05)
        before = [part.clone() for part in master_weights(engine._engine)]
        with suppress(RuntimeError), engine.averaged():
            raise RuntimeError
        both = zip(before, master_weights(engine._engine), strict=True)
        return all(torch.equal(old, new) for old, new in both)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_an_error_inside_leaves_the_weights(stage: int) -> None:
    assert run_ranks(2, fails_inside, averaging(stage)) == [True, True]


def goes_on(ranks: Ranks, config: RunConfig, weights: Weights | None) -> list[Weights]:
    """Load weights as the average and return it; then with one update more."""
    with closing(tiny_engine(config, ranks)) as engine:
        loaded = weights and {name: torch.from_numpy(weight) for name, weight in weights.items()}
        engine.load_average(loaded)
        with engine.averaged():
            found = [full_weights(engine)]
        one_step(engine, ranks, Step(0), 0.05)
        with engine.averaged():
            found.append(full_weights(engine))
        return [*found, full_weights(engine)]


@pytest.mark.parametrize(("world", "stage"), [(1, 0), (2, 1), (2, 2), (2, 3)])
def test_an_average_goes_on_at_any_stage(world: int, stage: int) -> None:
    start = by_hand("fp32")
    kept = decay_after(0, DECAY)
    for loaded, later, own in run_ranks(world, goes_on, averaging(stage, "fp32"), start):
        assert all(np.array_equal(loaded[name], start[name]) for name in start)
        expected = {name: kept * start[name] + (1 - kept) * own[name] for name in start}
        assert far_apart(later, expected) < 1e-6


def test_without_a_state_the_average_begins_with_the_weights() -> None:
    [(loaded, _, _)] = run_ranks(1, goes_on, averaging(0, "fp32"), None)
    first = {name: as_array(weight) for name, weight in TinyModel().named_parameters()}
    assert far_apart(loaded, first) == 0.0


def no_average(ranks: Ranks, config: RunConfig) -> bool:
    with closing(tiny_engine(config, ranks)) as engine, engine.averaged():
        return engine.average_state() is None


def test_there_is_none_by_default() -> None:
    assert run_ranks(1, no_average, tiny_config()) == [True]


def test_the_decay_rises_to_its_value() -> None:
    assert decay_after(0, 0.999) == pytest.approx(0.1)
    assert decay_after(90, 0.999) == pytest.approx(0.91)
    assert decay_after(10**6, 0.999) == 0.999
