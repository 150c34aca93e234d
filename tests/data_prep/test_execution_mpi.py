"""The MPI executor in real `mpirun` jobs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prep_execution
import pytest
from prep_execution import (
    CHINESE_FAULT,
    ENGLISH_FAULT,
    children,
    descendants,
    is_running,
    mpirun,
    mpirun_environment,
    run_all,
    start_mpirun,
    wait_for,
)

from data_prep.execution import LocalExecutor
from tests.patience import patience

JOB = (sys.executable, prep_execution.__file__)


@pytest.fixture(scope="module")
def local_results() -> dict[str, Any]:
    with LocalExecutor(2, record_seconds=1.0) as executor:
        results: dict[str, Any] = json.loads(json.dumps(run_all(executor)))
    return results


@pytest.mark.parametrize("ranks", [1, 3])
def test_results_are_those_of_local_workers(ranks: int, local_results: dict[str, Any]) -> None:
    done = mpirun(ranks, *JOB, "all")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == {**local_results, "workers": max(1, ranks - 1)}
    # A worker neither loads MPI nor has the variables by which it would become a rank.
    assert results["mpi"] == [[0, []]]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fail", f"part.jsonl:7: {ENGLISH_FAULT}, {CHINESE_FAULT}"),
        ("fail in caller", f"{ENGLISH_FAULT}, {CHINESE_FAULT}"),
    ],
)
def test_error_ends_the_job_with_one_line(mode: str, message: str) -> None:
    began = time.monotonic()
    done = mpirun(3, *JOB, mode)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "rror" in line] == [f"error: {message}"]
    assert time.monotonic() - began < patience(28)  # the tasks in flight take 300 seconds


@pytest.fixture
def sleepers() -> Iterator["subprocess.Popen[str]"]:
    """A job of three ranks whose two workers sleep."""
    with (
        # Not `tmp_path`: the names of sockets must be short.
        tempfile.TemporaryDirectory(prefix="mpi") as folder,
        start_mpirun(3, *JOB, "sleep", folder=Path(folder)) as process,
    ):
        wait_for(lambda: len(workers_of(process)) == 2, seconds=60.0)
        yield process
        process.kill()


def ranks_of(process: "subprocess.Popen[str]") -> list[int]:
    """The ranks' processes; those of MPI itself and the supervised ones are left out."""
    return [pid for pid in descendants(process.pid) if prep_execution.__file__ in arguments_of(pid)]


def arguments_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    return [
        worker
        for rank in ranks_of(process)
        for supervisor in children(rank)
        for worker in children(supervisor)
    ]


def test_killed_workers_disturb_no_rank_and_a_killed_rank_ends_the_job(
    sleepers: "subprocess.Popen[str]",
) -> None:
    ranks = ranks_of(sleepers)
    assert len(ranks) == 3
    for worker in workers_of(sleepers):
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(workers_of(sleepers)) == 2)
    assert ranks_of(sleepers) == ranks
    everybody = descendants(sleepers.pid)
    os.kill(next(rank for rank in ranks if children(rank)), signal.SIGKILL)
    sleepers.communicate(timeout=patience(20))
    assert sleepers.returncode != 0
    wait_for(lambda: not any(is_running(pid) for pid in everybody), seconds=2.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signal_to_mpirun_ends_the_job(
    sleepers: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    everybody = descendants(sleepers.pid)
    sleepers.send_signal(number)
    sleepers.communicate(timeout=patience(20))
    assert sleepers.returncode != 0
    # Ranks whose mpirun was killed notice it themselves.
    seconds = 20.0 if number == signal.SIGKILL else 2.0
    wait_for(lambda: not any(is_running(pid) for pid in everybody), seconds)


@pytest.mark.parametrize(
    ("code", "variables", "message"),
    [
        ("sys.modules['mpi4py'] = None", {}, "import of mpi4py halted; None in sys.modules"),
        ("", {"MPI4PY_LIBMPI": "/no/libmpi.so"}, "cannot load MPI library"),
    ],
)
def test_missing_mpi_is_told_in_one_line(
    code: str, variables: dict[str, str], message: str
) -> None:
    program = f"import sys; {code}\nimport prep_execution; prep_execution.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "all"],
        env={**mpirun_environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --executor mpi: {message}; install mpi4py (pip install ")
    assert done.stderr.count("\n") == 1


def test_mpi_library_without_threads_is_refused() -> None:
    program = "import mpi4py; mpi4py.rc.thread_level = 'funneled'\n"
    program += "import prep_execution; prep_execution.main()"
    done = mpirun(2, sys.executable, "-c", program, "all")
    assert done.returncode == 2
    assert "runs without MPI_THREAD_MULTIPLE" in done.stderr
