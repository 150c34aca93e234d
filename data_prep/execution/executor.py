"""Applying one function to many tasks: what all executors have in common."""

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

    Tasks and results should be small, as all go through the caller: names of files, not their
    content. A worker that dies is replaced and its task tried again; see `Context`.

    Attributes:
        workers: number of processes that work at the same time.
        record_seconds: time that a record may take for each started MB of its size, in the
            maps that begin from now on.
    """

    workers: int
    record_seconds: float
    _is_mapping = False

    def map(
        self,
        make: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield `(index, make(*arguments)(tasks[index], context))` as tasks finish.

        Tasks begin in order. After a failure no other begins, and those before it are awaited:
        the error is the same for any number of workers. One map at a time; closing one that
        is not used up ends its workers at once.

        Args:
            make: builds the work function, once in each process; must be importable.
            arguments: what `make` is called with; small.
            tasks: what the function is applied to, each with a `Context`.

        Raises:
            PrepError: a task's worker died again and again, not at any one record.
            Exception: what the function raised for the first task, in order, that failed.
        """
        if self._is_mapping:
            raise RuntimeError("one map at a time: the last one was neither used up nor closed")
        self._is_mapping = True
        try:
            self._begin(make.__module__, pickle.dumps((make, arguments)))
            yield from self._results(tasks)
        except (Exception, GeneratorExit):
            self._stop()
            raise
        except BaseException:
            # A signal may have cut a message between the processes in two.
            self._abandon()
            raise
        finally:
            self._is_mapping = False

    def _results(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        begun = 0
        end = len(tasks)  # of the tasks that are wanted: the first that failed
        failure: Outcome | None = None
        in_flight: set[int] = set()
        while True:
            room = self._room - len(in_flight)
            new = range(begun, min(begun + room, end))
            begun = max(begun, new.stop)
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
        """Number of tasks that may be handed out and not collected.

        One more for each worker, to begin with while the caller is busy with a result.
        """
        return 2 * self.workers

    @abstractmethod
    def _begin(self, module: str, function: bytes) -> None:
        """The tasks from now on are for `function`: `(make, arguments)`, pickled."""

    @abstractmethod
    def _submit(self, tasks: Sequence[tuple[int, bytes]]) -> None:
        """Hand out pickled tasks, possibly none; `_collect` comes next."""

    @abstractmethod
    def _collect(self) -> Sequence[tuple[int, bytes]]:
        """Wait for one pickled outcome or more."""

    @abstractmethod
    def _stop(self) -> None:
        """End what is in flight; nobody wants it."""

    def _abandon(self) -> None:
        """Do as `_stop`, at any point of this process's own work."""
        self._stop()

    def close(self) -> None:
        """End what is in flight, and the workers that are this executor's own."""
        self._stop()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _exception(failure: Outcome, task: object) -> Exception:
    if isinstance(failure, Died):
        if "SIGKILL" in failure.how:
            advice = "if memory ran out, use fewer --workers (with MPI: fewer ranks a machine)"
        else:
            advice = "no document is to blame: check the libraries and the tokenizer it loads"
        return PrepError(
            f"{failure.times} worker processes died on {_short(task)} ({failure.how}); {advice}"
        )
    assert isinstance(failure, Failure)
    error = failure.error
    if isinstance(error, MemoryError):
        return PrepError(
            f"memory ran out on {_short(task)}; use fewer --workers (with MPI: fewer ranks a "
            "machine)"
        )
    if not isinstance(error, PrepError):
        error.__cause__ = RemoteTraceback(failure.trace)
    return error


def _short(task: object) -> str:
    text = " ".join(str(task).split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
