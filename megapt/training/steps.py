"""The data of each step. A step begins once all ranks have their share."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass

from megapt.data import Batch, Counts, HeadSpec, Loader
from megapt.distributed.ranks import Ranks
from megapt.errors import MegaptError
from megapt.evaluation.losses import Totals, count_parts
from megapt.resilience.stopping import StopRequested, StopRequests


@dataclass(frozen=True)
class StepData:
    """This rank's share of a step, and the totals of the step."""

    micro_batches: list[Batch]
    totals: Totals
    """Targets of each head, over all ranks."""
    counts: Counts
    """Tokens, positions and targets, over all ranks."""
    seconds: float
    """Seconds that this rank waited for its share."""


def agreed_steps(
    loader: Loader[Batch],
    workers: int,
    heads: Sequence[HeadSpec],
    ranks: Ranks,
    stops: StopRequests,
    arrived: Callable[[], None] = lambda: None,
) -> Generator[StepData, None, None]:
    """Yield the data of each step, until the corpora end, if they do.

    If one rank has no data for a step, the iteration ends on all ranks, and none has consumed the
    step.

    Args:
        loader: loader of this rank.
        workers: number of processes that prepare the batches.
        heads: heads whose targets are counted.
        ranks: ranks of the job.
        stops: stop requests, which end the wait for data.
        arrived: called when this rank has its share, before it waits for the others.

    Yields:
        This rank's share of the next step, and the totals of the step.

    Raises:
        MegaptError: on every rank, if one of them cannot read its share.
        StopRequested: on every rank, if one of them was asked to stop while it waited.
    """
    endings = MegaptError, StopRequested, StopIteration
    with closing(loader.iterate(workers, stops.waiting)) as batches:
        while True:
            began = time.perf_counter()
            own: list[Batch] = []
            ending: BaseException | None = None
            try:
                _, own = next(batches)
            except endings as error:
                ending = error
            seconds = time.perf_counter() - began
            arrived()
            counts = astuple(sum((batch.counts for batch in own), Counts()))
            flags = [isinstance(ending, kind) for kind in endings]
            sizes, windows = count_parts(own, heads)
            totals = [*sizes, *windows, *counts]
            if not ranks.counts:  # Another rank holds the same batches.
                totals = [0] * len(totals)
            summed = ranks.sum([*flags, *totals])
            (failed, stopped, ended), summed = summed[:3], summed[3:]
            if not (failed or stopped or ended):
                n = len(heads)
                whole = Counts(*map(int, summed[2 * n :]))
                yield StepData(own, Totals(summed[:n], summed[n : 2 * n]), whole, seconds)
                continue
            if ending is None:
                loader.put_back()
            if failed:
                ranks.raise_on_all(ending if isinstance(ending, MegaptError) else None)
            if stopped:
                raise StopRequested
            return
