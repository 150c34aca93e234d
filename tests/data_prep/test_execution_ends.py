"""Runs that are cut short: no process, no file and no handle is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prep_execution import (
    children,
    descendants,
    is_running,
    make_hang,
    make_multiply,
    make_sleep,
    mpirun_environment,
    wait_for,
)

from data_prep.execution import LocalExecutor
from data_prep.execution.executor import Executor
from tests.patience import patience

CALLER = """
import sys
from pathlib import Path
from data_prep.execution import LocalExecutor
from prep_execution import make_hang

if __name__ == "__main__":
    with LocalExecutor(2, record_seconds=100.0) as executor:
        for _ in executor.map(make_hang, (), [Path(sys.argv[1], str(task)) for task in range(5)]):
            pass
"""


def workers_of_this_process() -> list[int]:
    return [pid for child in children(os.getpid()) for pid in children(child)]


@pytest.fixture
def caller(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process whose two workers hang in C code that holds the interpreter."""
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path)],
        env=mpirun_environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        yield process
        process.kill()


def to_caller(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)


def to_group(process: "subprocess.Popen[str]", number: int) -> None:
    os.killpg(process.pid, number)


@pytest.mark.parametrize("send", [to_caller, to_group])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_caller(
    caller: "subprocess.Popen[str]",
    send: Callable[["subprocess.Popen[str]", int], None],
    number: signal.Signals,
) -> None:
    below = descendants(caller.pid)
    assert len(below) == 3
    send(caller, number)
    wait_for(lambda: not any(is_running(pid) for pid in below), seconds=2.0)
    _, err = caller.communicate(timeout=patience(5))
    assert caller.returncode == -number
    # Of all processes only the caller has something to say.
    assert err.count("Traceback") == err.count("KeyboardInterrupt") == int(number == signal.SIGINT)


def test_no_worker_outlives_its_supervisor(caller: "subprocess.Popen[str]", tmp_path: Path) -> None:
    (supervisor,) = children(caller.pid)
    workers = children(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not any(is_running(pid) for pid in workers), seconds=2.0)
    wait_for(lambda: len(descendants(caller.pid)) == 3)


def test_map_that_is_closed_early_ends_its_workers_at_once() -> None:
    with LocalExecutor(2, 100.0) as executor:
        results = executor.map(make_sleep, (), [0.0, *[60.0] * 9])
        next(results)
        workers = workers_of_this_process()
        assert len(workers) == 2
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < patience(20)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)  # nor as a zombie
        assert len(list(executor.map(make_multiply, (1,), range(9)))) == 9


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_of_the_caller_ends_the_workers(error: type[BaseException]) -> None:
    def fail_midway() -> None:
        with LocalExecutor(2, 100.0) as executor:
            for _ in executor.map(make_sleep, (), [0.0, *[60.0] * 9]):
                assert workers_of_this_process()
                raise error

    with pytest.raises(error):
        fail_midway()
    assert not workers_of_this_process()


def test_signal_while_the_caller_waits_ends_the_workers(tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def send() -> None:
        wait_for(began.exists)
        os.kill(os.getpid(), signal.SIGUSR1)

    began = tmp_path / "began"
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with LocalExecutor(2, 100.0) as executor:
            threading.Thread(target=send).start()
            with pytest.raises(KeyboardInterrupt):
                list(executor.map(make_hang, (), [began]))
            assert not workers_of_this_process()
            assert len(list(executor.map(make_multiply, (1,), range(9)))) == 9
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_no_files_and_no_handles_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared() -> set[str]:
        return set(os.listdir("/dev/shm"))

    def use(executor: Executor) -> None:
        results = executor.map(make_sleep, (), [0.0, *[60.0] * 9])
        next(results)
        results.close()

    with LocalExecutor(2, 100.0) as executor:
        use(executor)
    handles, others = len(os.listdir("/proc/self/fd")), shared()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(multiprocessing.process.current_process()._config, "tempdir", None)
    for _ in range(3):
        with LocalExecutor(3, 100.0) as executor:
            use(executor)
            use(executor)
    assert len(os.listdir("/proc/self/fd")) == handles
    assert list(tmp_path.iterdir()) == []
    # What other processes of this machine share meanwhile, they take away again.
    wait_for(lambda: shared() <= others, seconds=60.0)
