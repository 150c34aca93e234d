"""Offloading and a secondary partition change where things are kept, and no update."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest

from tests.distributed.engines import Step, Trained, far_apart, tiny_config, train_tiny
from tests.ranks import run_ranks

PLAN = [Step(9, skip=True), Step(0, 2), Step(1), Step(9, 2, poison=math.nan), Step(2, 2)]
PLACES: list[dict[str, Any]] = [
    {"zero_stage": 1, "offload_optimizer": "cpu"},
    {"zero_stage": 2, "offload_optimizer": "cpu"},
    {"zero_stage": 3, "offload_optimizer": "cpu"},
    {"zero_stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"},
    {"zero_stage": 3, "zero_hpz_partition_size": 2},
]


@cache
def by_one_rank() -> Trained:
    wanted = [Step(step.text) for step in PLAN if not step.skip and step.poison is None]
    [trained] = run_ranks(1, train_tiny, tiny_config(optimizer={"eps": 1e-4}), wanted)
    return trained


@pytest.mark.parametrize("places", PLACES)
def test_a_place_changes_no_update(places: dict[str, Any]) -> None:
    expected = by_one_rank()
    config = tiny_config(parallel=places, optimizer={"eps": 1e-4, "ema_decay": 0.9})
    for trained in run_ranks(2, train_tiny, config, PLAN):
        assert trained.applied == [False, True, True, False, True]
        applied = [1, 2, 4]
        norms = [trained.norms[step] for step in applied]
        assert norms == pytest.approx(expected.norms, rel=1e-5)
        for step, theirs in zip(applied, expected.weights, strict=True):
            assert far_apart(trained.weights[step], theirs) < 1e-5
