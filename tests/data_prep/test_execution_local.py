"""The local executor when nothing goes wrong, and the errors that work functions raise."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_execution import (
    CHINESE_FAULT,
    ENGLISH_FAULT,
    descendants,
    make_broken,
    make_fail,
    make_multiply,
    make_report,
    make_sleep,
    make_slow_report,
    make_unpicklable_result,
    processor_seconds,
)

from data_prep.errors import PrepError
from data_prep.execution import Context, Executor, LocalExecutor, default_workers, open_executor
from data_prep.execution.outcome import RemoteTraceback
from tests.patience import patience


@pytest.fixture(params=[1, 2, 4])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with LocalExecutor(request.param, record_seconds=5.0) as executor:
        yield executor


def test_results_of_several_maps(executor: Executor) -> None:
    for factor in (2, 3, 5):
        results = list(executor.map(make_multiply, (factor,), range(50)))
        assert sorted(results) == [(index, index * factor) for index in range(50)]
    assert list(executor.map(make_multiply, (2,), [])) == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.just(0.0), st.booleans()), max_size=20), st.integers(1, 3))
def test_lowest_error_and_all_results_before_it(
    tasks: list[tuple[float, bool]], workers: int
) -> None:
    first = next((index for index, (_, fails) in enumerate(tasks) if fails), None)
    got = []
    with LocalExecutor(workers, 5.0) as executor:
        try:
            for index, _ in executor.map(make_fail, ("prep",), tasks):
                got.append(index)
        except PrepError:
            assert first is not None
            assert set(range(first)) <= set(got)
        else:
            assert first is None
            assert sorted(got) == list(range(len(tasks)))


def test_results_come_as_tasks_finish() -> None:
    with LocalExecutor(2, 5.0) as executor:
        results = executor.map(make_sleep, (), [0.4, 0.0, 0.0])
        assert [index for index, _ in results] == [1, 2, 0]


def test_workers_work_on_while_the_caller_is_busy() -> None:
    with LocalExecutor(2, 5.0) as executor:
        task = patience(0.4)
        results = executor.map(make_sleep, (), [task] * 4)
        next(results)
        time.sleep(2.5 * task)
        began = time.monotonic()
        assert len(list(results)) == 3
        assert time.monotonic() - began < 0.85 * task


def test_no_more_processes_than_tasks_or_workers() -> None:
    with LocalExecutor(3, 5.0) as executor:
        for tasks, processes in ((1, 1), (12, 3)):
            results = executor.map(make_slow_report, (), [0.05] * tasks)
            assert len({pid for _, pid in results}) == processes


def test_error_of_the_first_task_that_failed(executor: Executor) -> None:
    """The fourth task fails sooner than the third; only with one worker does it not begin."""
    tasks = [(0.0, False), (0.0, False), (0.2, True), (0.0, True), *[(30.0, False)] * 9]
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError) as caught:
        list(executor.map(make_fail, ("bug",), tasks))
    assert time.monotonic() - began < patience(20)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in work\n    raise errors[error]()" in str(caught.value.__cause__)
    assert len(list(executor.map(make_multiply, (1,), range(9)))) == 9


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("prep", PrepError, f"part.jsonl:7: {ENGLISH_FAULT}, {CHINESE_FAULT}"),
        ("os", FileNotFoundError, "[Errno 2] No such file or directory: 'part.jsonl'"),
        ("unpicklable", RuntimeError, "UnpicklableError: one"),
        ("memory", PrepError, "memory ran out on (0.0, True); use fewer --workers (with MPI: fewer "
         "ranks per machine)"),
    ],
)  # fmt: skip
def test_errors_arrive_as_they_were_raised(error: str, kind: type[Exception], message: str) -> None:
    with LocalExecutor(1, 5.0) as executor, pytest.raises(kind) as caught:
        list(executor.map(make_fail, (error,), [(0.0, True)]))
    assert str(caught.value) == message
    assert (caught.value.__cause__ is None) == (kind is PrepError)


def test_fault_of_the_function_that_makes_the_work() -> None:
    with LocalExecutor(2, 5.0) as executor:
        with pytest.raises(PrepError, match=r"^tokenizer\.model: not a tokenizer$"):
            list(executor.map(make_broken, (), range(5)))
        with pytest.raises(Exception, match="pickle"):
            list(executor.map(make_unpicklable_result, (), [1]))


def test_workers_see_the_callers_folder_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when their supervisor began under others."""
    for value in ("one", "二"):
        folder = tmp_path / value
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PREP_EXECUTION", value)
        with LocalExecutor(1, 5.0) as executor:
            seen = dict(executor.map(make_report, (), ["folder", "variable", "core", "pid"]))
        assert seen[0] == str(folder)
        assert seen[1] == value
        assert seen[2] == 0
        assert seen[3] != os.getpid()


def test_second_executor_starts_in_milliseconds() -> None:
    times = []
    for _ in range(5):
        began = time.monotonic()
        with LocalExecutor(2, 5.0) as executor:
            list(executor.map(make_multiply, (1,), [1, 2]))
        times.append(time.monotonic() - began)
    assert min(times[1:]) < patience(0.1)


def test_waiting_takes_no_processor_time() -> None:
    with LocalExecutor(2, 5.0) as executor:
        results = executor.map(make_sleep, (), [0.0, 1.0, 1.0])
        next(results)
        everybody = [os.getpid(), *descendants(os.getpid())]
        assert len(everybody) >= 4
        before = [processor_seconds(pid) for pid in everybody]
        assert len(list(results)) == 2
        after = [processor_seconds(pid) for pid in everybody]
    assert sum(after) - sum(before) < 0.1


def test_one_map_at_a_time() -> None:
    with LocalExecutor(1, 5.0) as executor:
        first = executor.map(make_multiply, (1,), range(9))
        next(first)
        with pytest.raises(RuntimeError, match="one map at a time"):
            next(executor.map(make_multiply, (1,), range(9)))
        assert len(list(first)) == 8


def test_large_messages_do_not_block_each_other() -> None:
    with LocalExecutor(2, 20.0) as executor:
        results: list[Any] = list(executor.map(make_multiply, (2,), ["长" * 500_000] * 12))
    assert all(result == "长" * 1_000_000 for _, result in results)


def test_context_without_a_worker_does_nothing() -> None:
    context = Context()
    context.enter(3, 10)
    context.leave()
    assert context.poisoned == {}
    assert not context.careful


def test_open_executor() -> None:
    assert default_workers() == len(os.sched_getaffinity(0))
    with open_executor("local") as executor:
        assert executor is not None
        assert executor.workers == default_workers()
    with pytest.raises(PrepError, match="set the number with `mpirun -n`"), open_executor("mpi", 2):
        pytest.fail("entered")
