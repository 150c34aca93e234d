"""The worker process, which runs the work function on one task after another."""

import ctypes
import os
import pickle
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from data_prep.execution.context import Context, Cursor
from data_prep.execution.outcome import Failure, Success

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Stage:
    """The function and the environment of one `map`, the same for all its tasks."""

    function: bytes
    """`(make, arguments)`, pickled."""
    module: str
    """Where `make` is defined; imported before workers are forked, so that they all share what it
    imports."""
    workers: int
    """Number of worker processes."""
    record_seconds: float
    """Seconds that a record may take for each started MB of its size."""
    folder: str
    """The caller's working directory."""
    path: list[str]
    """The caller's `sys.path`."""
    environment: dict[str, str]
    """Environment variables of the workers."""


@dataclass(frozen=True)
class Assignment:
    """A task for a worker."""

    task: bytes
    """The task, pickled."""
    poisoned: dict[int, str]
    """Records to skip; see `Context`."""
    careful: bool
    """Whether a worker died on this task."""


def run_worker(
    connection: Connection,
    supervisor: int,
    inherited: Sequence[Connection],
    cursor: Cursor,
    stage: Stage,
) -> None:
    """Reply to each `Assignment` from `connection` with a pickled outcome, until killed.

    Args:
        connection: connection to the supervisor.
        supervisor: process id of the supervisor.
        inherited: connections of the supervisor that the fork has copied; they are closed.
        cursor: shared with the supervisor.
        stage: the function for the tasks.
    """
    for other in inherited:
        other.close()
    _die_with(supervisor)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Otherwise a document that crashes a library leaves three core files of gigabytes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    function: Any = None
    while True:
        try:
            assignment: Assignment = connection.recv()
        except EOFError:  # the supervisor died just now, and the signal is on its way
            return
        context = Context(
            assignment.poisoned, assignment.careful, cursor, record_seconds=stage.record_seconds
        )
        try:
            if function is None:
                make, arguments = pickle.loads(stage.function)
                function = make(*arguments)
            outcome = pickle.dumps(Success(function(pickle.loads(assignment.task), context)))
        except Exception as error:
            outcome = pickle.dumps(Failure.of(error))
        # Not in a `finally`: after a SystemExit the cursor must still hold the record.
        context.leave()
        connection.send_bytes(outcome)


def _die_with(supervisor: int) -> None:
    """Make the kernel kill this process when its supervisor dies.

    A thread that waits for the end of a pipe is not enough: it cannot run while a regular
    expression or other C code holds the interpreter.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != supervisor:  # it died before the `prctl` call
        os._exit(1)
