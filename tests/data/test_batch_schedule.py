"""Global batches of changing sizes: they cut the sequence of windows, whoever reads which part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import (
    BatchMaker,
    BatchSchedule,
    Loader,
    LoaderState,
    open_corpora,
    open_stream,
)
from megapt.data.example import Ints
from megapt.data.state import WindowId, digest_windows
from megapt.errors import ConfigError
from tests.data.loading import assert_same as assert_same_arrays
from tests.data.loading import describe_data, joined, open_maker
from tests.patience import patience

sizes = st.integers(1, 12)
stages = st.lists(st.tuples(st.integers(1, 7), sizes), max_size=4)
schedules = st.builds(BatchSchedule, stages, sizes)


@dataclass
class Numbers:
    """A maker whose batches are the numbers of their windows, and the stream of these."""

    total: int | None = None
    name: str = "train"
    window_size: int = 1
    count: int = 1000
    keys: Sequence[int] = (1,)
    identity: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def stream(self) -> Any:
        return self

    def skip(self, skipped: Any) -> None:
        """There are no shards."""

    def lanes(self, numbers: Ints) -> Ints:
        return numbers % 4

    def ids(self, numbers: Sequence[int]) -> list[WindowId]:
        return [(number, 1, 0, number) for number in numbers]

    def batch(self, numbers: Sequence[int]) -> Any:
        return Told(list(numbers))


@dataclass
class Told:
    numbers: list[int]

    def widen(self) -> list[int]:
        return self.numbers


def read(loader: Loader[list[int]], steps: int) -> list[tuple[int, list[list[int]]]]:
    with closing(loader.iterate()) as iterator:
        return list(islice(iterator, steps))


@given(schedules)
def test_the_batches_cut_the_sequence_of_windows(schedule: BatchSchedule) -> None:
    steps = sum(n for n, _ in schedule.stages) + 5
    of_step = list(chain.from_iterable([size] * n for n, size in schedule.stages))
    of_step += [schedule.sizes[-1]] * 5
    assert [schedule.size(step) for step in range(steps)] == of_step
    firsts = [schedule.first_window(step) for step in range(steps + 1)]
    assert firsts == list(accumulate(of_step, initial=0))
    assert [schedule.step_of(window) for window in range(firsts[-1])] == [
        step for step, size in enumerate(of_step) for _ in range(size)
    ]
    for windows in range(firsts[-1] + 1):
        enough = schedule.steps_until(windows)
        assert schedule.first_window(enough) >= windows
        assert enough == 0 or schedule.first_window(enough - 1) < windows


@given(sizes, st.integers(0, 10**15))
def test_without_stages_a_step_is_a_multiple(size: int, number: int) -> None:
    schedule = BatchSchedule((), size)
    assert schedule.first_window(number) == number * size
    assert schedule.step_of(number) == number // size
    assert schedule.steps_until(number) == -(-number // size)


@given(schedules, schedules, st.integers(0, 40))
def test_schedules_agree_where_each_step_has_the_same_windows(
    one: BatchSchedule, other: BatchSchedule, steps: int
) -> None:
    same = all(one.size(step) == other.size(step) for step in range(steps))
    assert one.agrees(other, steps) == same


def test_a_stage_in_two_parts_is_the_same_stage() -> None:
    assert BatchSchedule([(2, 8), (3, 8)], 16).agrees(BatchSchedule([(5, 8)], 16), 10**12)
    assert not BatchSchedule([(2, 8), (3, 8)], 16).agrees(BatchSchedule([(6, 8)], 16), 10**12)


def test_a_seek_costs_nothing_however_far() -> None:
    schedule = BatchSchedule([(10**9, 2**k) for k in range(10)], 4096)
    began = time.perf_counter()
    for step in range(10**12, 10**12 + 1000):
        assert schedule.step_of(schedule.first_window(step) + 4095) == step
    assert time.perf_counter() - began < patience(1)


@pytest.mark.parametrize("arguments", [([(0, 4)], 8), ([(3, 0)], 8), ([], 0)])
def test_a_stage_without_steps_or_windows_is_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="steps and windows must be at least 1"):
        BatchSchedule(*arguments)


@given(st.data(), stages, sizes)
def test_any_ranks_and_micro_batches_read_the_same_windows_in_a_step(
    data: st.DataObject, stages: list[tuple[int, int]], size: int
) -> None:
    world, micro = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    unit = world * micro
    schedule = BatchSchedule([(steps, n * unit) for steps, n in stages], size * unit)
    steps = sum(steps for steps, _ in stages) + 2
    begun = data.draw(st.integers(0, steps))
    state = LoaderState({}, schedule.first_window(begun))
    ranks = []
    for rank in range(world):
        loader = Loader(
            Numbers(), global_batch_size=schedule, micro_batch_size=micro, rank=rank, world=world
        )
        loader.resume(state)
        ranks.append(read(loader, 3))
        assert loader.state().windows == schedule.first_window(begun + 3)
        loader.put_back()
        assert loader.state().windows == schedule.first_window(begun + 2)
    whole = Loader(Numbers(), global_batch_size=schedule)
    whole.resume(state)
    for (step, [expected]), *shares in zip(read(whole, 3), *ranks, strict=True):
        assert {number for number, _ in shares} == {step}
        first = schedule.first_window(step)
        assert sorted(expected) == list(range(first, first + schedule.size(step)))
        found = [batch for _, batches in shares for batch in batches]
        assert {len(batch) for batch in found} == {micro}
        assert list(chain.from_iterable(found)) == expected


def test_stops_and_resumes_at_every_step_change_nothing() -> None:
    schedule = BatchSchedule([(2, 4), (3, 8)], 12)
    whole: Loader[list[int]] = Loader(Numbers(), global_batch_size=schedule)
    expected = read(whole, 8)
    state = LoaderState({})
    for one in expected:
        loader: Loader[list[int]] = Loader(Numbers(), global_batch_size=schedule)
        loader.resume(LoaderState.from_json(state.to_json()))
        assert read(loader, 1) == [one]
        state = loader.state()
    assert state == whole.state()
    assert (state.windows, state.digest) == (
        schedule.first_window(8),
        digest_windows(Numbers().ids(range(schedule.first_window(8)))),
    )


@pytest.mark.parametrize(("windows", "size"), [(2, 4), (12, 8), (33, 12)])
def test_a_resume_within_a_batch_is_refused(windows: int, size: int) -> None:
    loader: Loader[list[int]] = Loader(
        Numbers(), global_batch_size=BatchSchedule([(2, 4), (3, 8)], 12)
    )
    with pytest.raises(ConfigError, match=f"not a whole number of global batches of {size}"):
        loader.resume(LoaderState({}, windows))


@pytest.mark.parametrize(("total", "steps"), [(3, 0), (8, 2), (15, 2), (16, 3), (43, 5), (44, 6)])
def test_the_sequence_ends_with_its_last_whole_batch(total: int, steps: int) -> None:
    schedule = BatchSchedule([(2, 4), (3, 8)], 12)
    assert len(read(Loader(Numbers(total), global_batch_size=schedule), 100)) == steps


def test_every_stage_divides_by_ranks_and_micro_batches() -> None:
    with pytest.raises(ValueError, match="a global batch of 6 windows is not divisible by 2 ranks"):
        Loader(Numbers(), global_batch_size=BatchSchedule([(2, 6)], 8), micro_batch_size=2, world=2)


def test_windows_tell_the_step_that_they_belong_to(corpus_folder: Path) -> None:
    schedule = BatchSchedule([(2, 3), (1, 5)], 8)
    with open_maker(describe_data(corpus_folder), "mlm") as opened:
        assert isinstance(opened, BatchMaker)
        maker = BatchMaker(opened.stream, opened.objective, 0, seed=5, global_batch_size=schedule)
        numbers = range(25)
        found = [window.step for window in maker.windows(numbers)]
        assert found == [schedule.step_of(number) for number in numbers]
        assert found[:12] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_the_weights_of_corpora_change_with_the_step(
    corpus_folder: Path, small_folder: Path
) -> None:
    """Also where the steps before it are smaller: the second stage of the mixture is at step 7."""
    data = describe_data(corpus_folder, small_folder)
    schedule = BatchSchedule([(4, 8), (2, 16)], 24)
    with closing(open_corpora(data)) as corpus:
        ramped, constant, spelt = (
            open_stream(corpus, "train", data, seed=5, global_batch_size=batch)
            for batch in (schedule, 24, BatchSchedule((), 24))
        )
    assert list(ramped.identity["mixture"]["weights"]) == ["0", str(4 * 8 + 2 * 16 + 24)]
    assert list(constant.identity["mixture"]["weights"]) == ["0", str(7 * 24)]
    assert constant.identity == spelt.identity


def test_a_ramp_reads_what_a_constant_batch_does(corpus_folder: Path) -> None:
    """The same windows in the same order, lanes being sorted within a step alone."""
    schedule = BatchSchedule([(4, 4), (2, 8)], 16)
    with open_maker(describe_data(corpus_folder), "mlm") as maker:
        ramped: Loader[Any] = Loader(maker, global_batch_size=schedule, micro_batch_size=4)
        constant: Loader[Any] = Loader(maker, global_batch_size=16, micro_batch_size=4)
        with closing(ramped.iterate(1)) as iterator:
            found = [batches for _, batches in islice(iterator, 8)]
        with closing(constant.iterate()) as iterator:
            expected = [batches for _, batches in islice(iterator, 4)]
    assert [len(batches) for batches in found] == [1, 1, 1, 1, 2, 2, 4, 4]
    assert ramped.state() == constant.state()
    for one, other in zip(found[6:], expected[2:], strict=True):
        assert_same_arrays(joined(one), joined(other))
    tokens = [
        sorted(np.concatenate([b.tokens for s in part for b in s])) for part in (found, expected)
    ]
    assert tokens[0] == tokens[1]
