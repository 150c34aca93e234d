"""Workers that die: what is tried again, what is left out, and what ends the run."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from prep_execution import (
    DEATHS,
    RECORDS,
    children,
    make_answer_and_die,
    make_die,
    make_die_anywhere,
    make_die_outside,
    make_dying,
    make_killed_at_random,
    make_multiply,
    make_sleep,
)

from data_prep.errors import PrepError
from data_prep.execution import LocalExecutor
from data_prep.execution.client import MAX_RESTARTS, Client
from data_prep.execution.context import Context, Cursor
from data_prep.execution.supervisor import MAX_DEATHS, MAX_TASK_DEATHS
from tests.patience import patience


def supervisors() -> list[int]:
    """Supervisors below this process that have workers."""
    return [child for child in children(os.getpid()) if children(child)]


@pytest.mark.parametrize("way", DEATHS)
def test_record_at_which_workers_die_is_left_out_and_named(way: str) -> None:
    began = time.monotonic()
    with LocalExecutor(2, record_seconds=1.0) as executor:
        results = dict(executor.map(make_die, (way,), range(4)))
    assert time.monotonic() - began < patience(10)
    undisturbed = {"done": list(range(RECORDS)), "poisoned": {}, "careful": False}
    assert results.pop(1) == {
        "done": [0, 1, 2, 3, 5],
        "poisoned": {4: DEATHS[way][1]},
        "careful": True,
    }
    assert results == {0: undisturbed, 2: undisturbed, 3: undisturbed}


@pytest.mark.parametrize(("way", "advice"), [("kill", "memory"), ("segfault", "libraries")])
def test_task_whose_workers_die_at_no_record(way: str, advice: str) -> None:
    got = []
    with LocalExecutor(1, 5.0) as executor, pytest.raises(PrepError) as caught:
        got.extend(executor.map(make_die_outside, (way,), [0, 1, 2]))
    message = str(caught.value)
    assert message.startswith(f"{MAX_DEATHS} worker processes died on 1 ({DEATHS[way][1]}); ")
    assert advice in message
    assert "\n" not in message


def test_long_tasks_are_named_in_short() -> None:
    with LocalExecutor(1, 5.0) as executor, pytest.raises(PrepError) as caught:
        list(executor.map(make_dying, (), ["很长\n" * 100]))
    assert "died on 很长 很长" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_task_whose_workers_die_at_changing_records() -> None:
    expected = rf"^{MAX_TASK_DEATHS} worker processes died on 0 \(killed by signal 9"
    with LocalExecutor(2, 5.0) as executor, pytest.raises(PrepError, match=expected):
        list(executor.map(make_die_anywhere, (), [0]))


def test_worker_that_dies_after_its_answer_gets_no_other_task() -> None:
    began = time.monotonic()
    with LocalExecutor(1, 5.0) as executor:
        results = []
        for result in executor.map(make_answer_and_die, (), range(5)):
            time.sleep(0.1)
            results.append(result)
    assert sorted(results) == [(index, index) for index in range(5)]
    assert time.monotonic() - began < patience(10)


def test_fifty_random_kills_lose_nothing(tmp_path: Path) -> None:
    with LocalExecutor(4, record_seconds=60.0) as executor:
        results = sorted(executor.map(make_killed_at_random, (tmp_path, 50), range(120)))
    assert results == [(index, index * 3) for index in range(120)]
    assert len(list(tmp_path.iterdir())) == 50


def test_killed_supervisor_is_replaced() -> None:
    with LocalExecutor(2, 5.0) as executor:
        results = []
        for result in executor.map(make_sleep, (), [0.1] * 10):
            if len(results) < 2:
                for pid in supervisors():
                    os.kill(pid, signal.SIGKILL)
            results.append(result)
        assert sorted(results) == [(index, 0.1) for index in range(10)]
        # Idle, with no map under way, it may die as well.
        for pid in children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        assert len(list(executor.map(make_multiply, (1,), range(9)))) == 9


def test_supervisor_that_is_killed_again_and_again() -> None:
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(0.05):
            for pid in supervisors():
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    expected = rf"supervises the workers ended {MAX_RESTARTS + 1} times .* exit code -9\)"
    try:
        with LocalExecutor(2, 5.0) as executor, pytest.raises(PrepError, match=expected):
            list(executor.map(make_sleep, (), [10.0]))
    finally:
        is_over.set()
        killer.join()


def test_client_whose_supervisor_dies_while_it_stops() -> None:
    client = Client()
    for pid in children(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    client.stop()
    client.end()


@pytest.mark.parametrize(
    ("size", "seconds"), [(0, 2.0), (1, 2.0), (1_000_000, 2.0), (1_000_001, 4.0), (50 * 10**6, 100)]
)
def test_time_limit_grows_with_the_record(size: int, seconds: float) -> None:
    cursor = Cursor()
    context = Context(cursor=cursor, record_seconds=2.0)
    assert cursor.record is None
    try:
        context.enter(2**52 + 1, size)
        assert cursor.record == 2**52 + 1
        assert cursor.seconds == seconds
        assert seconds - 1 < signal.getitimer(signal.ITIMER_REAL)[0] <= seconds
    finally:
        context.leave()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert cursor.record is None
