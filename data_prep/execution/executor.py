"""The base class of executors, which apply one function to many tasks."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from data_prep.errors import PrepError
from data_prep.execution.context import Context
from data_prep.execution.outcome import Died, Failure, Outcome, RemoteTraceback, Success

Task = TypeVar("Task")
Result = TypeVar("Result")
Work: TypeAlias = Callable[[Task, Context], Result]

_SHOWN_CHARACTERS = 120


class Executor(ABC):
    """Applies functions to tasks in worker processes; a context manager.

    Tasks and results should be small, because all pass through the caller: names of files, not
    their content. A worker that dies is replaced and its task is retried; see `Context`.
    """

    workers: int
    """Number of processes that work at the same time."""
    record_seconds: float
    """Seconds that a record may take for each started MB of its size; applies to later maps."""
    _is_mapping = False

    def map(
        self,
        make: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield `(index, make(*arguments)(tasks[index], context))` as tasks finish.

        Tasks begin in order. After a failure no other task begins, and earlier tasks are awaited,
        so the error does not depend on the number of workers. Only one map can run at a time.
        Closing an unfinished map ends its workers at once.

        Args:
            make: builds the work function, once in each process; must be importable.
            arguments: arguments of `make`; small.
            tasks: what the function is applied to, each with a `Context`.

        Raises:
            PrepError: workers died repeatedly on a task, and not at one record.
            Exception: the error of the function for the first task, in order, that failed.
        """
        if self._is_mapping:
            raise RuntimeError("one map at a time: the last one was neither finished nor closed")
        self._is_mapping = True
        try:
            self._begin(make.__module__, pickle.dumps((make, arguments)))
            yield from self._results(tasks)
        except (Exception, GeneratorExit):
            self._stop()
            raise
        except BaseException:
            # A signal may have interrupted a message between the processes.
            self._kill()
            raise
        finally:
            self._is_mapping = False

    def _results(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        submitted = 0
        end = len(tasks)  # of the tasks to wait for: the first that failed
        failure: Outcome | None = None
        in_flight: set[int] = set()
        while True:
            room = self._room - len(in_flight)
            new = range(submitted, min(submitted + room, end))
            submitted = max(submitted, new.stop)
            in_flight.update(new)
            if not any(index < end for index in in_flight):
                break
            self._submit([(index, pickle.dumps(tasks[index])) for index in new])
            for index, payload in self._collect():
                in_flight.remove(index)
                outcome: Outcome = pickle.loads(payload)
                if isinstance(outcome, Success):
                    yield index, outcome.value
                elif index < end:
                    end, failure = index, outcome
        if failure:
            raise _exception(failure, tasks[end])

    @property
    def _room(self) -> int:
        """Largest number of submitted tasks that are not collected.

        Two per worker: a worker can begin its next task while the caller processes a result.
        """
        return 2 * self.workers

    @abstractmethod
    def _begin(self, module: str, function: bytes) -> None:
        """Set the function for the next tasks: `(make, arguments)`, pickled."""

    @abstractmethod
    def _submit(self, tasks: Sequence[tuple[int, bytes]]) -> None:
        """Submit pickled tasks, possibly none; `_collect` is called next."""

    @abstractmethod
    def _collect(self) -> Sequence[tuple[int, bytes]]:
        """Wait for one pickled outcome or more."""

    @abstractmethod
    def _stop(self) -> None:
        """Cancel the tasks in flight."""

    def _kill(self) -> None:
        """Cancel the tasks in flight after any interruption of this process."""
        self._stop()

    def close(self) -> None:
        """Cancel the tasks in flight, and end the workers of this executor."""
        self._stop()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _exception(failure: Outcome, task: object) -> Exception:
    if isinstance(failure, Died):
        if "SIGKILL" in failure.how:
            advice = "if memory ran out, use fewer --workers (with MPI: fewer ranks per machine)"
        else:
            advice = "no single document is the cause: check the libraries and the tokenizer"
        return PrepError(
            f"{failure.times} worker processes died on {_short(task)} ({failure.how}); {advice}"
        )
    assert isinstance(failure, Failure)
    error = failure.error
    if isinstance(error, MemoryError):
        return PrepError(
            f"memory ran out on {_short(task)}; use fewer --workers (with MPI: fewer ranks "
            "per machine)"
        )
    if not isinstance(error, PrepError):
        error.__cause__ = RemoteTraceback(failure.trace)
    return error


def _short(task: object) -> str:
    text = " ".join(str(task).split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
