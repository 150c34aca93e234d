"""The loader: the windows of each step, and the share of them that a rank computes."""

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
    """What a loader process returns for one step."""

    batches: list[Packed[Widened]]
    digest: int
    skipped: Skipped
    error: MegaptError | None = None


class Loader(Dataset[_RankBatches[Widened]]):
    """Makes the micro-batches of one rank for each step.

    The global batches are consecutive parts of the sequence of windows: with G windows per step,
    batch t holds the windows t * G to (t + 1) * G - 1. Each rank takes an equal share of it, in the
    order of lanes, and each micro-batch an equal part of that share.

    Args:
        maker: makes batches of windows.
        global_batch_size: windows per step, over all ranks, or their schedule.
        micro_batch_size: windows of a micro-batch; a global batch must be a multiple of it times
            `world`. By default a rank's share of a step.
        rank: rank of this process.
        world: number of ranks.

    Raises:
        ValueError: if a global batch is not such a multiple.
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
                    f"a global batch of {size} windows is not divisible by {world} ranks x "
                    f"micro-batches of {micro_batch_size or size // world}"
                )
        self._maker = maker
        self._micro = micro_batch_size
        self._rank = rank
        self._world = world
        self._resumed = LoaderState(maker.stream.identity)
        self._step = 0
        self._digest = 0
        self._last_digest = 0
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
            # Passed on and raised in the rank: torch would wrap it in the worker's traceback.
            return _RankBatches([], 0, {}, error)
        return _RankBatches(batches, digest_windows(stream.ids(numbers.tolist())), stream.skipped)

    def resume(self, state: LoaderState) -> None:
        """Continue after the windows that `state` has consumed, on any number of ranks.

        Raises:
            ConfigError: if its order differs, or its windows are not a whole number of global
                batches.
        """
        state.check(self._resumed.order)
        step = self._batches.step_of(state.windows)
        if self._batches.first_window(step) != state.windows:
            raise ConfigError(
                f"cannot resume: {state.windows} windows are not a whole number of global batches "
                f"of {self._batches.size(step)}"
            )
        self._step = step
        self._resumed = state
        self._digest, self._skipped = 0, {}
        self._maker.stream.skip(state.skipped)

    def put_back(self) -> None:
        """Count the last step of `iterate` as not consumed, because it was not trained on."""
        self._step -= 1
        self._digest = add_digests(self._digest, -self._last_digest)

    def state(self, gather: Callable[[Any], list[Any]] = lambda mine: [mine]) -> LoaderState:
        """Return the state after the last step of `iterate`.

        Args:
            gather: gathers an object from all ranks; by default from this rank only.
        """
        ranks = gather((self._digest, self._skipped))
        return LoaderState(
            self._resumed.order,
            self._batches.first_window(self._step),
            add_digests(self._resumed.digest, *(digest for digest, _ in ranks)),
            join_skipped([self._resumed.skipped, *(skipped for _, skipped in ranks)]),
        )

    def iterate(
        self, workers: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[tuple[int, list[Widened]], None, None]:
        """Yield (step, its micro-batches) until the end of the sequence, if it has one.

        Close the generator to end the loader processes; they end with this process at the latest.

        Args:
            workers: processes that prepare the batches; the results do not depend on it.
            waiting: context of each wait for data. An exception raised in it, for example by a
                signal handler, ends the iteration after the previous step.

        Raises:
            MegaptError: if a shard cannot be read and is not skipped.
            LostProcessError: if a loader process has died.
        """
        iterator = self._iterate(workers, waiting)
        _iterators.add(iterator)
        return iterator

    def _iterate(
        self, workers: int, waiting: Waiting
    ) -> Generator[tuple[int, list[Widened]], None, None]:
        total = self._maker.stream.total
        # An incomplete last batch is skipped.
        steps = _CountFrom(self._step, None if total is None else self._batches.step_of(total))
        with closing(LoaderProcesses()) as processes:
            loader: DataLoader[_RankBatches[Widened]] = DataLoader(
                self,
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                worker_init_fn=processes.serve,
                collate_fn=_unchanged,  # type: ignore[arg-type]  # not a list without a batch size
                # The stream cannot be pickled, which the default of Python 3.14 would require.
                multiprocessing_context="fork" if workers else None,
            )
            shares = processes.start(loader)
            for step in steps:
                with processes.watched(), waiting():
                    share = next(shares)
                if share.error is not None:
                    raise share.error
                self._step = step + 1
                self._last_digest = share.digest
                self._digest = add_digests(self._digest, share.digest)
                self._skipped = join_skipped([self._skipped, share.skipped])
                yield step, [batch.widen() for batch in share.batches]


def _unchanged(share: _RankBatches[Widened]) -> _RankBatches[Widened]:
    """Keep numpy arrays: small ones pass through a pipe faster than tensors."""
    return share


_iterators: WeakSet[Generator[Any, None, None]] = WeakSet()


@atexit.register
def _close_iterators() -> None:
    """Close iterators that are still open, or Python would wait for the processes without end.

    At exit it sends them SIGTERM, which they ignore.
    """
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
    """Yield one rank's batches of the first `windows` windows, at most one epoch.

    Every rank yields the same number of batches, some possibly empty, because all ranks together
    gather sharded parameters (ZeRO 3).
    """
    windows = min(windows, maker.stream.count)
    for first in range(0, windows, micro_batch_size * world):
        start = first + rank * micro_batch_size
        yield maker.batch(range(start, min(start + micro_batch_size, windows))).widen()
