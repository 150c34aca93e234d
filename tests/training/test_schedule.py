"""What changes over a run: shapes, golden values, and what a run really uses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.config import Origins, RunConfig, ScheduleConfig, validate
from megapt.data.schedules import batch_schedule, length_schedule
from megapt.errors import ConfigError
from megapt.optim.schedule import rate_factor
from tests.ranks import run_ranks
from tests.training.runs import records_of, run_config, train

NAMES = ["constant", "linear", "cosine", "inverse_sqrt", "wsd"]
shares = st.floats(0, 1)


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleConfig:
    """Any schedule that the configuration accepts."""
    values = {
        "name": draw(st.sampled_from(NAMES)),
        "warmup_ratio": draw(st.one_of(st.just(0.0), st.floats(0.001, 0.9))),
        "min_lr_ratio": draw(shares),
        "decay_ratio": draw(st.one_of(st.just(0.0), st.floats(0.01, 1))),
        "decay_shape": draw(st.sampled_from(["linear", "sqrt"])),
    }
    try:
        return validate(ScheduleConfig, values, Origins())
    except ConfigError:
        # Warm-up and decay that overlap may be refused.
        assert values["warmup_ratio"] + values["decay_ratio"] > 1
        return ScheduleConfig()


@given(schedules(), shares)
def test_the_rate_lies_between_zero_and_its_peak(schedule: ScheduleConfig, spent: float) -> None:
    assert 0 <= rate_factor(schedule, spent) <= 1 + 1e-12


@given(schedules(), shares)
def test_the_rate_never_jumps(schedule: ScheduleConfig, share: float) -> None:
    # The steepest slope there is belongs to the shortest warm-up, one thousandth; but a root begins
    # upright: sqrt(2e-9 / 0.01) after the shortest decay.
    most = 1e-5 if schedule.decay_shape == "linear" else 5e-4
    for corner in (share, schedule.warmup_ratio, 1 - schedule.decay_ratio, 1e-3):
        before, after = max(corner - 1e-9, 0.0), min(corner + 1e-9, 1.0)
        assert abs(rate_factor(schedule, after) - rate_factor(schedule, before)) < most


@given(schedules(), shares, shares)
def test_the_rate_rises_during_the_warm_up_and_never_after(
    schedule: ScheduleConfig, a: float, b: float
) -> None:
    early, late = sorted((a, b))
    before, after = rate_factor(schedule, early), rate_factor(schedule, late)
    if late < schedule.warmup_ratio:
        assert before <= after
    if early >= schedule.warmup_ratio:
        assert after <= before + 1e-12


@given(schedules())
def test_the_rate_peaks_at_the_end_of_the_warm_up(schedule: ScheduleConfig) -> None:
    assert rate_factor(schedule, schedule.warmup_ratio) == pytest.approx(1)


@given(schedules())
def test_the_rate_ends_where_it_should(schedule: ScheduleConfig) -> None:
    ends = {
        "constant": 1.0,
        "linear": schedule.min_lr_ratio,
        "cosine": schedule.min_lr_ratio,
        "inverse_sqrt": math.sqrt(max(schedule.warmup_ratio, 1e-3)),
        "wsd": schedule.min_lr_ratio if schedule.decay_ratio else 1.0,
    }
    assert rate_factor(schedule, 1.0) == pytest.approx(ends[schedule.name])


@given(schedules())
def test_the_first_update_is_not_wasted(schedule: ScheduleConfig) -> None:
    assert rate_factor(schedule, 0.0) > 0


GOLDEN = {
    "constant": [(0.0, 1e-3), (0.05, 0.5), (0.1, 1.0), (0.55, 1.0), (1.0, 1.0)],
    "linear": [(0.05, 0.5), (0.1, 1.0), (0.55, 0.6), (1.0, 0.2)],
    "cosine": [(0.05, 0.5), (0.325, 0.8828427), (0.55, 0.6), (1.0, 0.2)],
    "inverse_sqrt": [(0.05, 0.5), (0.1, 1.0), (0.4, 0.5), (0.9, 1 / 3)],
    "wsd": [(0.05, 0.5), (0.1, 1.0), (0.75, 1.0), (0.875, 0.6), (1.0, 0.2)],
}


@pytest.mark.parametrize(
    ("name", "spent", "factor"),
    [(name, *point) for name, points in GOLDEN.items() for point in points],
)
def test_golden_values(name: str, spent: float, factor: float) -> None:
    schedule = validate(
        ScheduleConfig,
        {"name": name, "warmup_ratio": 0.1, "min_lr_ratio": 0.2, "decay_ratio": 0.25},
        Origins(),
    )
    assert rate_factor(schedule, spent) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("spent", "factor"), [(0.75, 1.0), (0.8125, 0.6), (0.875, 0.4343146), (1.0, 0.2)]
)
def test_golden_values_of_the_decay_by_a_root(spent: float, factor: float) -> None:
    values = {
        "name": "wsd",
        "warmup_ratio": 0.1,
        "min_lr_ratio": 0.2,
        "decay_ratio": 0.25,
        "decay_shape": "sqrt",
    }
    schedule = validate(ScheduleConfig, values, Origins())
    assert rate_factor(schedule, spent) == pytest.approx(factor)


def planned(
    amount: float = 3840.0, batch: int = 8, axis: str = "raw_tokens", **schedule: Any
) -> RunConfig:
    """A run over windows of 48 tokens: by default 80 of them, in 10 steps."""
    return run_config(
        Path("corpus"),
        Path("run"),
        schedule=schedule,
        training={"budget": {"axis": axis, "amount": amount}, "global_batch_size": batch},
    )


RAMP = [{"until": 0.1, "global_batch_size": 2}, {"until": 0.3, "global_batch_size": 4}]


def test_golden_stages_of_batches() -> None:
    config = planned(batch_size_rampup=RAMP)
    assert config.batch_stages == ((4, 2), (4, 4), (7, 8))
    assert config.planned_steps == 15
    schedule = batch_schedule(config)
    assert [schedule.first_window(step) for step in (0, 4, 8, 15)] == [0, 8, 24, 80]


def test_golden_stages_of_lengths() -> None:
    stages = [{"until": 0.1, "length": 16}, {"until": 0.4, "length": 24}]
    alone, both = (
        length_schedule(planned(window_rampup=stages, **more))
        for more in ({}, {"batch_size_rampup": RAMP})
    )
    assert [alone.length(step) for step in range(5)] == [16, 24, 24, 24, None]
    assert [both.length(step) for step in (3, 4, 8, 9)] == [16, 24, 24, None]


@given(
    st.lists(
        st.tuples(st.floats(0.001, 0.999), st.integers(1, 40)),
        max_size=4,
        unique_by=lambda stage: stage[0],
    ),
    st.floats(1, 1e7),
)
def test_a_stage_ends_with_the_first_step_that_reaches_its_share(
    stages: list[tuple[float, int]], amount: float
) -> None:
    ramp = [{"until": until, "global_batch_size": size} for until, size in sorted(stages)]
    config = planned(amount, batch_size_rampup=ramp)
    found = config.batch_stages
    assert found is not None
    if not all(steps for steps, _ in found[:-1]):
        with pytest.raises(ConfigError, match="holds no step"):
            batch_schedule(config)
        return
    schedule = batch_schedule(config)
    step = 0
    for stage, (steps, size) in zip(ramp, schedule.stages, strict=True):
        step += steps
        assert size == stage["global_batch_size"]
        before, after = (schedule.first_window(step - back) * 48 / amount for back in (1, 0))
        assert before < stage["until"] * (1 + 1e-9)
        assert after > stage["until"] * (1 - 1e-9)
    steps = config.planned_steps
    assert steps is not None
    assert steps >= step
    if steps > step:
        assert schedule.first_window(steps - 1) * 48 < amount <= schedule.first_window(steps) * 48


@given(st.floats(1, 1e13), st.integers(1, 4096))
def test_the_steps_of_one_batch_are_what_the_budget_holds(amount: float, batch: int) -> None:
    assert planned(amount, batch).planned_steps == math.ceil(amount / (batch * 48))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            planned(axis="targets", batch_size_rampup=RAMP),
            "schedule.batch_size_rampup: needs a budget in raw_tokens, not in targets: ",
        ),
        (
            planned(axis="positions", window_rampup=[{"until": 0.1, "length": 16}]),
            "schedule.window_rampup: needs a budget in raw_tokens, not in positions: ",
        ),
        (
            planned(
                batch_size_rampup=[
                    {"until": 0.1, "global_batch_size": 32},
                    {"until": 0.3, "global_batch_size": 4},
                ]
            ),
            "schedule.batch_size_rampup: the stage until 0.3 of the budget holds no step of 4 "
            "windows; ",
        ),
        (
            planned(window_rampup=[{"until": 0.11, "length": 16}, {"until": 0.12, "length": 24}]),
            "schedule.window_rampup: the stage until 0.12 of the budget holds no step; ",
        ),
        (
            planned(window_rampup=[{"until": 0.1, "length": 48}]),
            "schedule.window_rampup: windows of 48 tokens do not divide into parts of 48; ",
        ),
        (
            planned(window_rampup=[{"until": 0.1, "length": 20}]),
            "schedule.window_rampup: windows of 48 tokens do not divide into parts of 20; ",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(config: RunConfig, message: str) -> None:
    key = message.partition(":")[0]
    with pytest.raises(ConfigError) as error:
        length_schedule(config, Origins({key: "run.yaml:7"}))
    assert str(error.value).startswith(f"run.yaml:7: {message}")


def test_a_run_uses_the_rate_of_its_schedule(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        optimizer={"lr": 0.02},
        schedule={"name": "linear", "warmup_ratio": 0.25, "min_lr_ratio": 0.5},
        training={"budget": {"axis": "positions", "amount": 3000.0}},
    )
    run_ranks(1, train, config)
    records = records_of(config, "train")
    spent = [0.0, *(record["positions"] / 3000 for record in records[:-1])]
    # The warm-up takes four updates or less, written out: lr * max(spent / warmup, 1 / 1000).
    expected = [
        0.02 * (max(s / 0.25, 1e-3) if s < 0.25 else 1 - 0.5 * (s - 0.25) / 0.75) for s in spent
    ]
    assert [record["learning_rate"] for record in records] == pytest.approx(expected)
    assert records[-1]["positions"] >= 3000
