"""The process that forks workers, assigns tasks to them, and replaces those that die.

It is a separate process because it must fork. It has no threads, no MPI and little state, and never
runs the work function. A fork is therefore safe and takes milliseconds, with all imports done. The
caller drives it with `client.Client`.

The caller sends a `Stage`, then lists of `(index, pickled task)`. The supervisor replies once to
each list, even an empty one, with a list of `(index, pickled outcome)`, as soon as it has one.
`None` ends all workers; the reply is an empty list. The workers also end when the connection is
closed, so no process survives the caller, however it ends.
"""

import importlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from data_prep.execution.context import Cursor
from data_prep.execution.outcome import Died, Failure
from data_prep.execution.worker import Assignment, Stage, run_worker

MAX_DEATHS = 3
"""Deaths at one record after which it is poisonous, or outside records after which the task fails.

One SIGKILL by the OOM killer or an operator is not the document's fault, and two may be chance."""
MAX_TASK_DEATHS = 10
"""Deaths on one task, at changing records, after which it fails: probably memory runs out."""

_fork = multiprocessing.get_context("fork")


@dataclass
class _Job:
    """A task and its deaths so far."""

    index: int
    task: bytes
    poisoned: dict[int, str] = field(default_factory=dict)
    deaths: Counter[int | None] = field(default_factory=Counter)

    def count_death(self, record: int | None, how: str) -> Died | None:
        """Count a death at `record`, None for outside records; return `Died` to stop retrying."""
        self.deaths[record] += 1
        if self.deaths[record] == MAX_DEATHS and record is not None:
            self.poisoned[record] = how
            self.deaths.clear()
        times = self.deaths.total()
        if self.deaths[None] == MAX_DEATHS or times == MAX_TASK_DEATHS:
            return Died(times, how)
        return None


class _Worker:
    """A worker process, as the supervisor sees it; `job` is None when it is idle."""

    def __init__(self, stage: Stage, inherited: list[Connection]) -> None:
        self.job: _Job | None = None
        self.cursor = Cursor()
        self.connection, theirs = _fork.Pipe()
        try:
            self.process = _fork.Process(
                target=run_worker,
                args=(theirs, os.getpid(), [*inherited, self.connection], self.cursor, stage),
            )
            self.process.start()
        finally:
            theirs.close()

    def assign(self, job: _Job) -> None:
        """Send a job to the worker."""
        self.job = job
        # The SIGCHLD of a worker that has just died is handled later.
        with suppress(BrokenPipeError, ConnectionResetError):
            careful = bool(job.deaths or job.poisoned)
            self.connection.send(Assignment(job.task, job.poisoned, careful))

    def receive(self) -> bytes | None:
        """Return the pickled outcome of the job; None if the process died."""
        with suppress(EOFError, OSError):  # it died before or while it sent the outcome
            if self.connection.poll():
                return self.connection.recv_bytes()
        return None

    def end(self) -> str:
        """End the process if it still runs, and return how it ended."""
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        self.connection.close()
        if code == -signal.SIGALRM and self.cursor.seconds:
            return f"took more than {self.cursor.seconds:g} s"
        if code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"


class Supervisor:
    """Serves one caller.

    Args:
        caller: connection to the caller.
    """

    def __init__(self, caller: Connection) -> None:
        self.caller = caller
        self.stage: Stage | None = None
        self.workers: list[_Worker] = []
        self.waiting: deque[_Job] = deque()
        self.outcomes: list[tuple[int, bytes]] = []
        self.is_reply_due = False
        # The end of the worker's pipe does not show its death: a process that the worker has forked
        # may keep the pipe open.
        self._deaths, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Serve until the caller closes its end or dies."""
        try:
            while True:
                self._assign_jobs()
                if self.is_reply_due and self.outcomes:
                    self.caller.send(self.outcomes)
                    self.outcomes, self.is_reply_due = [], False
                pipes = [worker.connection for worker in self.workers]
                ready = set(wait([self.caller, self._deaths, *pipes]))
                for worker in list(self.workers):
                    if worker.connection in ready:
                        self._receive(worker)
                if self._deaths in ready:
                    os.read(self._deaths, 4096)
                    for worker in list(self.workers):
                        if not worker.process.is_alive():
                            self._receive(worker)
                if self.caller in ready:
                    self._handle(self.caller.recv())
        except (EOFError, OSError):
            pass  # the caller has ended, perhaps in the middle of a message
        finally:
            self._end_workers()

    def _handle(self, message: Stage | list[tuple[int, bytes]] | None) -> None:
        if isinstance(message, list):
            self.waiting.extend(_Job(index, task) for index, task in message)
            self.is_reply_due = True
        elif isinstance(message, Stage):
            self._end_workers()
            self._begin_stage(message)
        else:
            self._end_workers()
            self.waiting.clear()
            self.outcomes, self.is_reply_due = [], False
            self.caller.send([])

    def _begin_stage(self, stage: Stage) -> None:
        self.stage = stage
        os.chdir(stage.folder)
        sys.path[:] = stage.path
        os.environ.clear()
        os.environ.update(stage.environment)
        # Only to share the imports; if it fails, it also fails in the worker, which reports it.
        with suppress(Exception):
            importlib.import_module(stage.module)

    def _assign_jobs(self) -> None:
        while self.waiting:
            idle = next((worker for worker in self.workers if worker.job is None), None)
            if idle is None:
                try:
                    idle = self._new_worker()
                except OSError as error:  # no process or file handle is available
                    failure = pickle.dumps(Failure.of(error))
                    self.outcomes.append((self.waiting.popleft().index, failure))
                    continue
                if idle is None:
                    return
            idle.assign(self.waiting.popleft())

    def _new_worker(self) -> _Worker | None:
        """Start another worker; return None if all workers of the stage run."""
        assert self.stage is not None
        if len(self.workers) == self.stage.workers:
            return None
        inherited = [self.caller, *(worker.connection for worker in self.workers)]
        worker = _Worker(self.stage, inherited)
        self.workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> None:
        """Handle a worker's outcome, its death, or both."""
        outcome = worker.receive()
        if outcome is not None and worker.job is not None:
            self.outcomes.append((worker.job.index, outcome))
            worker.job = None
        if outcome is not None and worker.process.is_alive():
            return
        record, job = worker.cursor.record, worker.job
        self.workers.remove(worker)
        how = worker.end()
        if job is None:
            return
        if (died := job.count_death(record, how)) is None:
            self.waiting.appendleft(job)
        else:
            self.outcomes.append((job.index, pickle.dumps(died)))

    def _end_workers(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        while self.workers:
            self.workers.pop().end()


def main(handle: int, preload: Sequence[str]) -> None:
    """Serve the caller at the other end of the socket `handle`; see `client.Client`."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; only the caller handles them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for module in preload:
        with suppress(ImportError):  # the stage that needs it reports it
            importlib.import_module(module)
    Supervisor(Connection(handle)).run()
