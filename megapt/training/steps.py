"""The data of one step after another; all ranks have theirs before any of them computes."""

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
    """This rank's share of a step, and how much the whole step is."""

    micro_batches: list[Batch]
    totals: Totals
    """What is asked, over all ranks."""
    counts: Counts
    """Over all ranks."""
    seconds: float
    """Until this rank had its share."""


def agreed_steps(
    loader: Loader[Batch],
    workers: int,
    heads: Sequence[HeadSpec],
    ranks: Ranks,
    stops: StopRequests,
    arrived: Callable[[], None] = lambda: None,
) -> Generator[StepData, None, None]:
    """Yield the steps to the end of the corpora, if they have one.

    A step for which one rank has nothing ends all of them, and none has consumed it.

    Args:
        loader: of this rank.
        workers: processes that prepare the batches.
        heads: whose targets are counted.
        ranks: of the job.
        stops: end the wait for data.
        arrived: called when this rank has its share, before it waits for the others.

    Raises:
        MegaptError: on every rank, if one of them cannot read its share.
        StopRequested: on every rank, if one of them was asked to stop while it waited.
    """
    lacking = MegaptError, StopRequested, StopIteration
    with closing(loader.iterate(workers, stops.waiting)) as batches:
        while True:
            began = time.perf_counter()
            mine: list[Batch] = []
            lack: BaseException | None = None
            try:
                _, mine = next(batches)
            except lacking as error:
                lack = error
            seconds = time.perf_counter() - began
            arrived()
            counts = astuple(sum((batch.counts for batch in mine), Counts()))
            flags = [isinstance(lack, kind) for kind in lacking]
            sizes, windows = count_parts(mine, heads)
            asked = [*sizes, *windows, *counts]
            if not ranks.counts:  # Another rank holds the same batches.
                asked = [0] * len(asked)
            summed = ranks.sum([*flags, *asked])
            (failed, stopped, ended), summed = summed[:3], summed[3:]
            if not (failed or stopped or ended):
                n = len(heads)
                whole = Counts(*map(int, summed[2 * n :]))
                yield StepData(mine, Totals(summed[:n], summed[n : 2 * n]), whole, seconds)
                continue
            if lack is None:
                loader.put_back()
            if failed:
                ranks.agree(lack if isinstance(lack, MegaptError) else None)
            if stopped:
                raise StopRequested
            return
