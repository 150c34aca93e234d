"""Updates through the engine: any accumulation and stage alike, and none that is left out."""

from __future__ import annotations

import math
import os
from contextlib import closing
from functools import cache

import numpy as np
import pytest
import torch

from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from tests.distributed.engines import (
    Step,
    Trained,
    far_apart,
    tiny_config,
    tiny_engine,
    train_tiny,
)
from tests.ranks import run_ranks

VARYING = [Step(0, 1), Step(1, 2), Step(2, 4), Step(3, 1), Step(4, 2)]
STAGES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")]


@cache
def by_one_rank(precision: str = "fp32", clip: float = 1.0) -> Trained:
    """The updates of one rank without ZeRO, each from one micro-batch."""
    plan = [Step(step.text) for step in VARYING]
    settings = {"eps": 1e-4, "max_grad_norm": clip}
    config = tiny_config(training={"precision": precision}, optimizer=settings)
    [trained] = run_ranks(1, train_tiny, config, plan)
    return trained


@pytest.mark.parametrize(
    ("world", "stage", "precision"), [(1, 2, "fp32"), *((2, *stage) for stage in STAGES)]
)
def test_accumulation_may_change_from_update_to_update(
    world: int, stage: int, precision: str
) -> None:
    config = tiny_config(
        training={"precision": precision}, parallel={"zero_stage": stage}, optimizer={"eps": 1e-4}
    )
    expected = by_one_rank(precision)
    for trained in run_ranks(world, train_tiny, config, VARYING):
        assert trained.applied == [True] * len(VARYING)
        rel, far = (1e-5, 1e-5) if precision == "fp32" else (0.05, 0.1)
        assert trained.norms == pytest.approx(expected.norms, rel=rel)
        for mine, theirs in zip(trained.weights, expected.weights, strict=True):
            assert far_apart(mine, theirs) < far


@pytest.mark.parametrize(("world", "stage"), [(2, 0), (2, 1), (2, 2), (2, 3), (4, 0), (4, 2)])
def test_ranks_that_share_positions_add_up(world: int, stage: int) -> None:
    """Two ranks answer for the positions of the same examples."""
    config = tiny_config(
        parallel={"zero_stage": stage, "sequence_parallel_size": 2},
        optimizer={"eps": 1e-4, "max_grad_norm": 0.3},
    )
    expected = by_one_rank(clip=0.3)
    for trained in run_ranks(world, train_tiny, config, VARYING[:3]):
        assert trained.norms == pytest.approx(expected.norms[:3], rel=1e-5)
        for mine, theirs in zip(trained.weights, expected.weights[:3], strict=True):
            assert far_apart(mine, theirs) < 1e-5


@pytest.mark.parametrize("stage", [2, 3])
def test_gradients_may_be_accumulated_in_float32(stage: int) -> None:
    """Then the accumulation is exact, unlike that in bfloat16."""
    types = {"grad_accum_dtype": "fp32"}
    config = tiny_config(
        training={"precision": "bf16"},
        parallel={"zero_stage": stage},
        optimizer={"eps": 1e-4},
        deepspeed={"data_types": types, "communication_data_type": "fp32"},
    )
    plan = [Step(7, skip=True), Step(0, 4), Step(7, 2, poison=math.nan), Step(1, 2)]
    whole = [Step(0), Step(1)]
    [expected] = run_ranks(1, train_tiny, config, whole)
    for trained in run_ranks(2, train_tiny, config, plan):
        assert trained.applied == [False, True, False, True]
        assert trained.norms[1] == pytest.approx(expected.norms[0], rel=5e-3)
        assert far_apart(trained.weights[3], expected.weights[1]) < 0.05


UNWANTED = [
    Step(7, 2, skip=True),
    Step(7, 1, poison=math.nan),
    Step(7, 2, poison=math.inf),
    Step(7, 2, skip=True, poison=math.nan),
]


@pytest.mark.parametrize(("world", "clip"), [(1, 0.5), (2, 0.0)])
@pytest.mark.parametrize(("stage", "precision"), STAGES)
def test_an_update_left_out_leaves_no_trace(
    world: int, clip: float, stage: int, precision: str
) -> None:
    """The first of all, and some in between; the others are those of a run that never saw them."""
    config = tiny_config(
        training={"precision": precision},
        parallel={"zero_stage": stage},
        optimizer={"max_grad_norm": clip},
    )
    wanted = [Step(0, 2), Step(1, 1), Step(2, 2)]
    plan = [UNWANTED[0], wanted[0], *UNWANTED, wanted[1], UNWANTED[1], wanted[2]]
    expected = run_ranks(world, train_tiny, config, wanted)
    for rank, trained in enumerate(run_ranks(world, train_tiny, config, plan)):
        kept = [step in wanted for step in plan]
        assert trained.applied == kept
        assert 0 < trained.norms[0] < math.inf
        assert [math.isfinite(norm) for norm in trained.norms[2:6]] == [True, False, False, False]
        for i, left_out in enumerate(plan[1:], start=1):
            if left_out in wanted:
                continue
            before, after = trained.weights[i - 1], trained.weights[i]
            assert all(np.array_equal(before[name], after[name]) for name in before)
            both = zip(trained.states[i - 1], trained.states[i], strict=True)
            assert all(np.array_equal(old, new) for old, new in both)
        assert trained.states[-1]
        places = [i for i, keep in enumerate(kept) if keep]
        for mine, theirs in zip(places, range(3), strict=True):
            assert trained.norms[mine] == expected[rank].norms[theirs]
            one, other = trained.weights[mine], expected[rank].weights[theirs]
            assert all(np.array_equal(one[name], other[name]) for name in other)
            states = zip(trained.states[mine], expected[rank].states[theirs], strict=True)
            assert all(np.array_equal(old, new) for old, new in states)


def deterministic(ranks: Ranks, config: RunConfig) -> tuple[bool, str | None]:
    with closing(tiny_engine(config, ranks)):
        chosen = torch.are_deterministic_algorithms_enabled()
    return chosen, os.environ.get("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_kernels_are_chosen(wanted: bool) -> None:
    config = tiny_config(training={"deterministic": wanted})
    assert run_ranks(1, deterministic, config) == [(wanted, ":4096:8" if wanted else None)]
