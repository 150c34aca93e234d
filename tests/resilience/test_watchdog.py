"""A rank that hangs or dies is told with rank and stack, and ends the job in time."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megapt.config import FaultsConfig
from megapt.distributed.mesh import Mesh
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import import_deepspeed, set_timeout
from megapt.errors import ConfigError, Exit, RanksLost, TrainingError
from megapt.resilience import heartbeats
from megapt.resilience.heartbeats import FAILED, KILLED, Heartbeat, innermost, suspects
from megapt.resilience.rank_monitor import BEAT_SIZE, Beat
from megapt.resilience.watchdog import Watchdog
from tests.patience import patience
from tests.ranks import Outcome, end_ranks, rank_of, run_ranks

ALONE = Ranks(0, Mesh(), torch.device("cpu"))
TIMEOUT, STEP = 2.0, 4
FAULTS = FaultsConfig(timeout=TIMEOUT, slow_phase_timeout=30.0)
LONG = 600.0


def stop_here() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def die_here() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_here() -> None:
    time.sleep(LONG)


def spin_here() -> None:
    """Hold Python's lock in C, for a time that nobody waits for."""
    re.match(r"(a+)+$", "a" * 40 + "b")


def fail_here() -> None:
    raise KeyError("a mistake in the program")


def read_here() -> None:
    """Wait for a file that does not come."""
    read, _ = os.pipe()
    os.read(read, 1)


def go(ranks: Ranks, folder: Path, fault: Callable[[], None], doing: str) -> None:
    """Do steps with a collective in each; in step STEP the last rank has its fault."""
    watchdog = Watchdog(folder, ranks, FAULTS)
    try:
        with watchdog.watching():
            for step in range(1, 10**6):
                for phase in ("data", "forward", "update"):
                    watchdog.beat(step, phase)
                    if (ranks.rank, step, phase) == (ranks.world - 1, STEP, doing):
                        fault()
                    if phase == "update":
                        ranks.sum([1.0])
    except RanksLost as lost:
        if str(lost):
            print(f"megapt: error: {lost}", flush=True)
        os._exit(lost.code)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Start what forks the ranks, so that the time of a test is that of its job."""
    run_ranks(1, rank_of)


def ended(outcome: Outcome) -> int:
    assert "died with exit code" in outcome.failure, outcome
    return int(outcome.failure.rpartition(" ")[2])


def the_line(printed: str) -> str:
    """The one line in which the job says what is wrong."""
    [line] = [line for line in printed.splitlines() if line.startswith("megapt: error")]
    return line


@pytest.mark.parametrize(
    ("fault", "doing", "why"),
    [
        (stop_here, "update", "process stopped"),
        (sleep_here, "data", r"it waits at test_watchdog.py:\d+ in sleep_here"),
        (read_here, "data", r"it waits at test_watchdog.py:\d+ in read_here"),
    ],
)
def test_a_rank_that_hangs_is_named_and_the_job_ends(
    tmp_path: Path, fault: Callable[[], None], doing: str, why: str
) -> None:
    began = time.monotonic()
    outcomes, printed = end_ranks(2, go, tmp_path, fault, doing)
    assert time.monotonic() - began < patience(TIMEOUT + 10)
    assert [ended(outcome) for outcome in outcomes] == [Exit.LOST_PROCESS] * 2
    assert re.fullmatch(
        rf"megapt: error: rank 1 on host \S+ \(pid \d+\) has made no progress since step {STEP} "
        rf"\({doing}\) for [2-5] s: {why}; stacks in {tmp_path}/ranks",
        the_line(printed),
    )
    hung, waiting = (
        heartbeats.stacks_file(tmp_path / "ranks", rank).read_text() for rank in (1, 0)
    )
    # One that was stopped is woken to write them, and may have gone on a little.
    assert f"in {fault.__name__}" in hung or (fault is stop_here and "in go" in hung)
    assert "in sum" in waiting


def test_a_rank_that_cannot_even_end_itself_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    [outcome], printed = end_ranks(1, go, tmp_path, spin_here, "forward")
    assert time.monotonic() - began < patience(TIMEOUT + 10)
    assert outcome.killed
    assert "rank 0 on host" in the_line(printed)
    assert "it computes" in the_line(printed)
    assert "in spin_here" in heartbeats.stacks_file(tmp_path / "ranks", 0).read_text()


def test_a_rank_that_is_killed_is_named_by_the_others(tmp_path: Path) -> None:
    outcomes, printed = end_ranks(3, go, tmp_path, die_here, "forward")
    assert outcomes[2].killed
    assert [ended(outcome) for outcome in outcomes[:2]] == [Exit.LOST_PROCESS] * 2
    said = rf"megapt: error: rank 2 on host \S+ \(pid \d+\) was killed in step {STEP} \(forward\)"
    assert re.fullmatch(said, the_line(printed)), printed


def test_a_rank_that_fails_tells_it_itself_and_the_job_is_not_to_start_again(
    tmp_path: Path,
) -> None:
    outcomes, printed = end_ranks(2, go, tmp_path, fail_here, "forward")
    assert "a mistake in the program" in outcomes[1].failure
    assert ended(outcomes[0]) == Exit.FAILED
    assert "megapt: error" not in printed


def fail_together(ranks: Ranks, folder: Path, error: type[Exception]) -> None:
    with pytest.raises(error, match="of one's own"), Watchdog(folder, ranks, FAULTS).watching():
        raise error("of one's own")


@pytest.mark.parametrize("error", [TrainingError, ConfigError, RuntimeError])
def test_an_error_that_no_lost_rank_explains_stays_as_it_is(
    tmp_path: Path, error: type[Exception]
) -> None:
    run_ranks(1, fail_together, tmp_path, error)
    left = list((tmp_path / "ranks").glob("*"))
    assert len(left) == (error is RuntimeError), "what all ranks raise leaves nothing behind"


def work_slowly(ranks: Ranks, folder: Path) -> None:
    watchdog = Watchdog(folder, ranks, FaultsConfig(timeout=0.5, slow_phase_timeout=20.0))
    with watchdog.watching():
        watchdog.beat(1, "data")
        with watchdog.slow_phase("checkpoint"):
            time.sleep(1.5)
        for _ in range(10):
            time.sleep(0.2)
            watchdog.beat(2, "data")


def test_what_may_take_long_may_and_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    run_ranks(2, work_slowly, tmp_path)
    assert list(tmp_path.iterdir()) == []


def be_signalled(ranks: Ranks, folder: Path) -> str:
    """Get what batch systems send to every process of a job."""
    watchdog = Watchdog(folder, ranks, FAULTS)
    with watchdog.watching():
        assert watchdog._monitor is not None
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT):
            os.kill(watchdog._monitor.pid, number)
        watchdog.beat(7, "data")
        time.sleep(1.0)
        heartbeat = heartbeats.read_heartbeat(folder / "ranks", 0)
        assert heartbeat is not None
        return f"{heartbeat.state} {heartbeat.step} {heartbeat.doing}"


def test_signals_do_not_end_the_rank_monitor(tmp_path: Path) -> None:
    [said] = run_ranks(1, be_signalled, tmp_path)
    assert said == "alive 7 data"


def train_twice(ranks: Ranks, folder: Path) -> None:
    said = f"another job trains here: rank 0 on host .*pid {os.getpid()}"
    with Watchdog(folder, ranks, FAULTS).watching(), pytest.raises(ConfigError, match=said):
        Watchdog(folder, ranks, FAULTS).start()


def test_two_jobs_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run_ranks(1, train_twice, tmp_path)


def work(ranks: Ranks, folder: Path) -> None:
    with Watchdog(folder, ranks, FAULTS).watching():
        pass


def test_what_a_killed_job_leaves_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    heartbeats.write_heartbeat(tmp_path / "ranks", Heartbeat(0, "gone", 1, pulse=9))
    heartbeats.write_heartbeat(tmp_path / "ranks", Heartbeat(1, "gone", 1, KILLED))
    run_ranks(1, work, tmp_path)
    assert list(tmp_path.iterdir()) == []


def beats_of(*changes: dict[str, object]) -> list[Heartbeat]:
    usual = {"host": "n", "pid": 1, "beats": 9, "at": "a.py:1 in sum"}
    return [Heartbeat(rank=r, **{**usual, **change}) for r, change in enumerate(changes)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "silent", "found"),
    [
        ([{}, {"state": KILLED}, {"beats": 8}], set(), [1]),
        ([{}, {"state": FAILED}, {}], set(), [1]),
        ([{}, {}, {"beats": 8}], {0}, [0]),
        ([{}, {"process": "process stopped"}, {"beats": 8}], set(), [1]),
        ([{}, {"beats": 8}, {"beats": 8}], set(), [1, 2]),
        ([{}, {"at": "b.py:2 in read"}, {}], set(), [1]),
        ([{}, {"at": "b.py:2 in read"}], set(), [0, 1]),
        ([{}, {}], set(), [0, 1]),
    ],
)
def test_who_is_to_blame(
    changes: list[dict[str, object]], silent: set[int], found: list[int]
) -> None:
    assert [heartbeat.rank for heartbeat in suspects(beats_of(*changes), silent)] == found


def test_the_line_that_the_main_thread_is_at() -> None:
    text = (
        'Current thread 0x01 [megapt] (most recent call first):\n  File "/a/w.py", line 3 in tell\n'
        'Thread 0x02 (most recent call first):\n  File "/a/b.py", line 57 in step\n'
        '  File "/a/c.py", line 9 in main\n'
    )
    assert innermost(text) == "b.py:57 in step"
    assert innermost("") == ""


def test_a_beat_costs_microseconds(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path, ALONE, FAULTS)
    watchdog.start()
    try:
        began = time.perf_counter()
        for step in range(10000):
            watchdog.beat(step, "forward")
        assert time.perf_counter() - began < patience(0.5)  # 50 µs each; it is 2
    finally:
        watchdog.stop()


BEATS = st.builds(
    Beat, st.integers(1, 2**40), st.integers(0, 2**40), st.floats(1, 1e6), st.sampled_from("ab")
)


@given(BEATS, BEATS, st.integers(0, BEAT_SIZE))
def test_a_beat_over_another_is_whole_or_none(before: Beat, after: Beat, written: int) -> None:
    assert Beat.unpack(before.pack()) == before
    found = Beat.unpack(after.pack()[:written] + before.pack()[written:])
    assert found in (None, before, after)
    assert Beat.unpack(bytes(written) + after.pack()[written:]) in (None, after)


def beat_or_look(ranks: Ranks, folder: Path) -> int:
    """Beat on one rank; return how many beats another one sees meanwhile."""
    file = folder / "beats"
    if ranks.main:
        file.write_bytes(bytes(BEAT_SIZE))
    ranks.barrier()
    with file.open("r+b") as opened:
        shared = mmap(opened.fileno(), BEAT_SIZE)
    end, seen = time.monotonic() + 1.0, set()
    watchdog = Watchdog(folder, ALONE, FAULTS)
    watchdog._shared = shared
    while time.monotonic() < end:
        if ranks.main:
            for step in range(100):
                watchdog.beat(step, "forward")
        elif beat := Beat.unpack(shared[:]):
            assert beat[2:] == (TIMEOUT, "forward")
            assert beat.step == (beat.number - 1) % 100
            seen.add(beat.number)
    return len(seen)


def test_whoever_looks_sees_no_beat_half_written(tmp_path: Path) -> None:
    """One look in a million that takes a limit of nothing for true ends a job that trains."""
    _, seen = run_ranks(2, beat_or_look, tmp_path)
    assert seen > 10


def wait_in_a_group_of_deepspeed(ranks: Ranks) -> float:
    """Return the seconds that a rank waits where another one stays away."""
    set_timeout(1.0)
    group = import_deepspeed().comm.new_group(range(ranks.world))
    began = time.monotonic()
    if ranks.rank == 1:
        time.sleep(3.0)
    else:
        with pytest.raises(RuntimeError, match=r"(?i)timed out"):
            torch.distributed.all_reduce(torch.zeros(1), group=group)
    return time.monotonic() - began


def test_no_collective_waits_longer_than_asked() -> None:
    waited, _ = run_ranks(2, wait_in_a_group_of_deepspeed)
    assert 0.9 < waited < 2.9
