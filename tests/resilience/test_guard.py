"""Which updates are left out, when a run goes back, and when it gives up."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.config import FaultsConfig
from megapt.errors import TrainingError
from megapt.resilience.guard import Guard, Reaction, Verdict

NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Update:
    norm: float = 1.0
    applied: bool = True


def take(guard: Guard, step: int, loss: float | None, norm: float = 1.0) -> Reaction:
    """Do what the trainer and an engine do of one update."""
    skip = guard.judge(loss) is Verdict.SKIP
    return guard.seen(step, loss, Update(norm, not skip and math.isfinite(norm)))


def feed(guard: Guard, *losses: float | None) -> list[Reaction]:
    return [take(guard, step, loss) for step, loss in enumerate(losses, 1)]


def faults(**changes: Any) -> FaultsConfig:
    return FaultsConfig.model_validate({"spike_window": 8, **changes})


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_an_update_whose_loss_is_not_finite_is_left_out(loss: float) -> None:
    guard = Guard(faults())
    assert guard.judge(loss) is Verdict.SKIP
    reaction = guard.seen(3, loss, Update(1.0, applied=False))
    assert (reaction.event, reaction.rollback) == ("skipped", False)
    assert reaction.what["in_a_row"] == guard.skipped == 1


@pytest.mark.parametrize("loss", [None, 0.0, 1e30, -5.0])
def test_any_finite_loss_is_kept_while_no_spikes_are_looked_for(loss: float | None) -> None:
    guard = Guard(faults())
    feed(guard, *[1.0] * 20)
    assert guard.judge(loss) is Verdict.KEEP
    assert take(guard, 21, loss) == Reaction()


def test_so_many_in_a_row_and_the_run_goes_back() -> None:
    guard = Guard(faults(max_skipped_updates=3, max_rollbacks=1))
    backs = [reaction.rollback for reaction in feed(guard, NAN, NAN, 1.0, NAN, NAN, NAN, 1.0)]
    assert backs == [False, False, False, False, False, True, False]
    assert (guard.skipped, guard.rollbacks) == (5, 1)
    with pytest.raises(TrainingError, match=r"step 3: 3 updates in a row .* rolled back 1 times"):
        feed(guard, NAN, NAN, NAN)


def test_a_gradient_that_is_not_finite_counts_as_a_loss_does() -> None:
    guard = Guard(faults(max_skipped_updates=2))
    assert take(guard, 1, 1.0, INF).event == "skipped"
    assert take(guard, 2, NAN).rollback


def test_the_search_for_the_loss_scale_is_no_fault() -> None:
    guard = Guard(faults(max_skipped_updates=2), scaled=True)
    assert not any(take(guard, step, 1.0, INF).rollback for step in range(1, 30))
    assert guard.skipped == 29
    assert take(guard, 30, NAN).rollback, "a loss that is not finite is one"


@pytest.mark.parametrize(
    ("on_spike", "verdict", "rollback"),
    [
        ("record", Verdict.KEEP, False),
        ("skip", Verdict.SKIP, False),
        ("rollback", Verdict.SKIP, True),
    ],
)
def test_a_spike_is_treated_as_asked(on_spike: str, verdict: Verdict, rollback: bool) -> None:
    guard = Guard(faults(spike_threshold=4.0, on_spike=on_spike))
    feed(guard, *[1.0, 1.1] * 4)
    assert guard.judge(1.24) is Verdict.KEEP
    assert guard.judge(1.26) is verdict
    reaction = take(guard, 9, 1.26)
    assert (reaction.event, reaction.rollback) == ("spike", rollback)
    assert reaction.what["deviations"] == pytest.approx((1.26 - 1.05) / 0.05)
    assert guard.rollbacks == rollback
    assert guard.skipped == (verdict is Verdict.SKIP)


def test_a_drop_is_no_spike_nor_is_the_noise_of_a_plateau() -> None:
    guard = Guard(faults(spike_threshold=3.0, on_spike="skip"))
    feed(guard, *[2.0] * 8)
    assert guard.judge(0.1) is Verdict.KEEP
    assert guard.judge(2.005) is Verdict.KEEP
    assert guard.judge(2.007) is Verdict.SKIP


def test_nothing_is_a_spike_before_half_the_window_is_known() -> None:
    guard = Guard(faults(spike_threshold=3.0, on_spike="skip"))
    feed(guard, 1.0, 1.0, 1.0, None)
    assert guard.judge(1e9) is Verdict.KEEP
    feed(guard, 1.0)
    assert guard.judge(1e9) is Verdict.SKIP


def test_a_spike_does_not_hide_the_next_but_a_new_level_is_one() -> None:
    guard = Guard(faults(spike_threshold=3.0))
    feed(guard, *[1.0] * 8)
    events = [reaction.event for reaction in feed(guard, *[5.0] * 12)]
    assert events[:4] == ["spike"] * 4
    assert events[4:] == [""] * 8
    assert take(guard, 30, 9.0).event == "spike"


def test_spikes_that_are_left_out_count_as_other_updates_do() -> None:
    guard = Guard(faults(spike_threshold=3.0, on_spike="skip", max_skipped_updates=3))
    feed(guard, *[1.0] * 8)
    assert [reaction.rollback for reaction in feed(guard, 5.0, NAN, 5.0)] == [False, False, True]
    assert guard.judge(5.0) is Verdict.KEEP, "the statistics start again"


losses = st.lists(
    st.one_of(
        st.none(),
        st.floats(0.0, 20.0),
        st.sampled_from([1.0, 1.01, 1.02, 30.0, NAN, INF]),
    ),
    max_size=60,
)


@given(
    losses,
    st.integers(0, 60),
    st.sampled_from(["record", "skip", "rollback"]),
    st.floats(0.0, 6.0),
)
def test_a_resumed_guard_judges_as_the_unbroken_one(
    series: list[float | None], cut: int, on_spike: str, spike: float
) -> None:
    config = faults(
        spike_threshold=spike, on_spike=on_spike, max_skipped_updates=4, max_rollbacks=1000
    )
    whole, resumed = Guard(config), Guard(config)
    for step, loss in enumerate(series, 1):
        if step == cut:
            resumed = Guard(config, json.loads(json.dumps(resumed.state)))
        assert whole.judge(loss) is resumed.judge(loss)
        # As text, in which a number that is not one equals itself.
        assert repr(take(whole, step, loss)) == repr(take(resumed, step, loss))
    assert whole.state == resumed.state


@given(losses, st.sampled_from(["record", "skip", "rollback"]))
def test_what_is_not_finite_is_never_applied_nor_remembered(
    series: list[float | None], on_spike: str
) -> None:
    guard = Guard(faults(spike_threshold=3.0, on_spike=on_spike, max_rollbacks=1000))
    for step, loss in enumerate(series, 1):
        finite = loss is None or math.isfinite(loss)
        assert finite or guard.judge(loss) is Verdict.SKIP
        assert finite or take(guard, step, loss).event == "skipped"
        if finite:
            take(guard, step, loss)
        assert all(map(math.isfinite, guard.state["losses"]))
        assert len(guard.state["losses"]) <= 8
