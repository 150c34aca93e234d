"""Global batches: which windows make step t, and the share of them that one rank computes."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import numpy as np
from torch.utils.data import DataLoader, Dataset

from megapt.data.batch import Batch
from megapt.data.batch_maker import BatchMaker, Maker, Packed
from megapt.data.batch_schedule import GlobalBatch, as_schedule
from megapt.data.example import Ints
from megapt.data.processes import LoaderProcesses
from megapt.data.state import LoaderState, Skipped, add_digests, digest_windows, join_skipped
from megapt.data.stream import in_lane_order
from megapt.errors import ConfigError, MegaptError

Widened = TypeVar("Widened")
Waiting = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class _RankBatches(Generic[Widened]):
    """What a loader process hands over for one step."""

    batches: list[Packed[Widened]]
    digest: int
    skipped: Skipped
    error: MegaptError | None = None


class Loader(Dataset[_RankBatches[Widened]]):
    """Step t -> the micro-batches of one rank.

    The global batches cut the sequence of windows into consecutive parts: with G windows a step,
    batch t holds the windows t * G to (t + 1) * G - 1. Ranks take equal shares of it in the order
    of lanes, whatever their number, and micro-batches equal parts of the share.

    Args:
        maker: makes batches of windows.
        global_batch_size: windows of a step, over all ranks, or their schedule.
        micro_batch_size: windows of a micro-batch; a global batch is a multiple of it times
            `world`.
            By default a rank's share of a step.
        rank: of this process.
        world: ranks.

    Raises:
        ValueError: if the sizes do not divide.
    """

    def __init__(
        self,
        maker: Maker[Widened],
        *,
        global_batch_size: GlobalBatch,
        micro_batch_size: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._batches = as_schedule(global_batch_size)
        for size in self._batches.sizes:
            if size % (world * (micro_batch_size or 1)):
                raise ValueError(
                    f"a global batch of {size} windows does not divide by {world} ranks x "
                    f"micro-batches of {micro_batch_size or size // world}"
                )
        self._maker = maker
        self._micro = micro_batch_size
        self._rank = rank
        self._world = world
        self._begun = LoaderState(maker.stream.identity)
        self._step = 0
        self._digest = 0
        self._last = 0
        self._skipped: Skipped = {}

    def numbers(self, step: int) -> Ints:
        """Return the windows of this rank's share of a step, int64 [global batch / world]."""
        first, size = self._batches.first_window(step), self._batches.size(step)
        by_lane = in_lane_order(self._maker.stream, np.arange(first, first + size))
        share = size // self._world
        return by_lane[self._rank * share : (self._rank + 1) * share]

    def __getitem__(self, step: int) -> _RankBatches[Widened]:
        numbers = self.numbers(step)
        parts = numbers.reshape(-1, self._micro or len(numbers)).tolist()
        stream = self._maker.stream
        try:
            batches = [self._maker.batch(part) for part in parts]
        except MegaptError as error:
            # Raised again in the rank itself: torch would wrap it in the trace of the process.
            return _RankBatches([], 0, {}, error)
        return _RankBatches(batches, digest_windows(stream.ids(numbers.tolist())), stream.skipped)

    def resume(self, state: LoaderState) -> None:
        """Go on after the windows that `state` has consumed, on any number of ranks.

        Raises:
            ConfigError: if it is of another order, or not of a whole number of global batches.
        """
        state.check(self._begun.order)
        step = self._batches.step_of(state.windows)
        if self._batches.first_window(step) != state.windows:
            raise ConfigError(
                f"cannot resume: {state.windows} windows are no whole number of global batches "
                f"of {self._batches.size(step)}"
            )
        self._step = step
        self._begun = state
        self._digest, self._skipped = 0, {}
        self._maker.stream.skip(state.skipped)

    def put_back(self) -> None:
        """Count the step that `iterate` gave last as not consumed; nothing was trained on it."""
        self._step -= 1
        self._digest = add_digests(self._digest, -self._last)

    def state(self, gather: Callable[[Any], list[Any]] = lambda mine: [mine]) -> LoaderState:
        """Return the state after the last step that `iterate` gave.

        Args:
            gather: returns the objects of all ranks; without it, those of this one.
        """
        ranks = gather((self._digest, self._skipped))
        return LoaderState(
            self._begun.order,
            self._batches.first_window(self._step),
            add_digests(self._begun.digest, *(digest for digest, _ in ranks)),
            join_skipped([self._begun.skipped, *(skipped for _, skipped in ranks)]),
        )

    def iterate(
        self, workers: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[tuple[int, list[Widened]], None, None]:
        """Yield (step, its micro-batches) to the end of the sequence, if it has one.

        Close the generator to end the processes; they end with this one at the latest.

        Args:
            workers: processes that prepare the batches; what is yielded does not depend on it.
            waiting: entered for each wait for data. What is raised in it, by the handler of a
                signal for instance, ends the iteration after the step before.

        Raises:
            MegaptError: a shard cannot be read, and that ends the run.
            LostProcessError: a process has died.
        """
        iterator = self._iterate(workers, waiting)
        _iterators.add(iterator)
        return iterator

    def _iterate(
        self, workers: int, waiting: Waiting
    ) -> Generator[tuple[int, list[Widened]], None, None]:
        total = self._maker.stream.total
        # A last batch that the windows do not fill is left out.
        steps = _CountFrom(self._step, None if total is None else self._batches.step_of(total))
        with closing(LoaderProcesses()) as processes:
            loader: DataLoader[_RankBatches[Widened]] = DataLoader(
                self,
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                worker_init_fn=processes.serve,
                collate_fn=_as_it_is,  # type: ignore[arg-type]  # not a list without a batch size
                # The stream cannot be pickled; from Python 3.14 on the default method would.
                multiprocessing_context="fork" if workers else None,
            )
            shares = processes.start(loader)
            for step in steps:
                with processes.watched(), waiting():
                    share = next(shares)
                if share.error is not None:
                    raise share.error
                self._step = step + 1
                self._last = share.digest
                self._digest = add_digests(self._digest, share.digest)
                self._skipped = join_skipped([self._skipped, share.skipped])
                yield step, [batch.widen() for batch in share.batches]


def _as_it_is(share: _RankBatches[Widened]) -> _RankBatches[Widened]:
    """Keep numpy's arrays: small ones go through a pipe faster than tensors do."""
    return share


_iterators: WeakSet[Generator[Any, None, None]] = WeakSet()


@atexit.register
def _close_iterators() -> None:
    """Do what nobody did: Python would send the processes a SIGTERM and wait for them for ever."""
    for iterator in list(_iterators):
        iterator.close()


@dataclass(frozen=True)
class _CountFrom:
    start: int
    stop: int | None

    def __iter__(self) -> Iterator[int]:
        step = self.start
        while self.stop is None or step < self.stop:
            yield step
            step += 1


def validation_batches(
    maker: BatchMaker, windows: int, *, micro_batch_size: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Yield one rank's batches of the first `windows` windows, at most those of one epoch.

    Every rank yields the same number of batches, if need be empty ones, because sharded
    parameters (ZeRO 3) are gathered by all ranks together.
    """
    windows = min(windows, maker.stream.count)
    for first in range(0, windows, micro_batch_size * world):
        start = first + rank * micro_batch_size
        yield maker.batch(range(start, min(start + micro_batch_size, windows))).widen()
