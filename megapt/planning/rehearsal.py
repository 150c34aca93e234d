"""`megapt train --dry-run`: all checks and a few updates on made-up text; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from megapt.config import Origins, RunConfig
from megapt.data import Batch, TextFacts
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.evaluation.losses import Totals, count_parts, factors
from megapt.objectives import Objective
from megapt.planning.memory import PeakMemory
from megapt.planning.text import made_up_batch
from megapt.training.make_engine import make_engine
from megapt.training.parts import RunParts
from megapt.training.prepared import prepare

_UPDATES = 2
"""The first update allocates lasting memory, such as optimizer states; the second is timed."""


@dataclass(frozen=True)
class Rehearsal:
    """Memory and time of a few updates; the largest values over the ranks."""

    parameters: int
    peak_bytes: float
    """Peak memory beyond the memory before the model; NaN if unknown."""
    start_seconds: float
    """Seconds to build model and engine."""
    step_seconds: float
    """Seconds of an update with all micro-batches of the configuration."""
    tokens_per_second: float
    """Raw tokens per second, over all ranks."""

    def lines(self) -> Iterator[str]:
        """Yield the values as lines of text."""
        known = self.peak_bytes == self.peak_bytes
        yield f"Parameters  {self.parameters:,}"
        yield f"Memory      {self.peak_bytes / 1e9:.2f} GB a rank" if known else "Memory      ?"
        yield f"Start       {self.start_seconds:.1f} seconds for model and engine"
        yield f"Step        {self.step_seconds:.3g} s, {self.tokens_per_second:,.0f} raw tokens/s"

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON; None for what is unknown."""
        known = self.peak_bytes == self.peak_bytes
        return {**asdict(self), "peak_bytes": self.peak_bytes if known else None}


def _micro_batch(engine: Engine, batch: Batch, objective: Objective, last: bool) -> None:
    totals = Totals(*count_parts([batch], objective.heads))
    output = engine(batch, factors(objective.heads, totals))
    engine.backward(output.loss, last)


def _synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rehearse(parts: RunParts, text: TextFacts) -> Rehearsal:
    """Build model and engine, and do a few updates on full windows. All ranks call it.

    Args:
        parts: the parts of the run.
        text: facts of the corpus; the made-up documents have its lengths.
    """
    ranks, objective = parts.ranks, parts.objective
    training, size = parts.config.training, parts.config.data.window
    batch = made_up_batch(text, objective, size, training.micro_batch_size, parts.rows)
    batch = batch.to(ranks.device)
    micro_batches = training.global_batch_size // (training.micro_batch_size * ranks.data_world)
    tried = min(micro_batches, 2)  # Accumulated gradients exist from the second one on.
    memory = PeakMemory(ranks.device)
    began = time.perf_counter()
    with closing(make_engine(parts)) as engine:
        parameters = engine.parameters
        started = time.perf_counter() - began
        for _ in range(_UPDATES):
            ranks.barrier()
            began = time.perf_counter()
            for number in range(tried):
                _micro_batch(engine, batch, objective, last=number == tried - 1)
            _synchronize(ranks.device)
            passes = time.perf_counter() - began
            if engine.step(0.0).applied:
                engine.update_average()
            _synchronize(ranks.device)
            seconds = time.perf_counter() - began
        peak = memory.bytes()
    seconds += passes / tried * (micro_batches - tried)
    mine = float("nan") if peak is None else float(peak), started, seconds
    peaks, starts, steps = zip(*ranks.gather(mine), strict=True)
    return Rehearsal(
        parameters=parameters,
        peak_bytes=max(peaks),
        start_seconds=max(starts),
        step_seconds=max(steps),
        tokens_per_second=training.global_batch_size * size / max(steps),
    )


def dry_run(config: RunConfig, ranks: Ranks, origins: Origins) -> Rehearsal:
    """Check a run as at its start, and rehearse it. Nothing is written to its folder.

    Raises:
        MegaptError: as `prepare`.
    """
    # Otherwise copies of checkpoints would be fetched into the run folder.
    checkpoint = config.checkpoint.model_copy(update={"copy_to": None})
    run = prepare(config.model_copy(update={"checkpoint": checkpoint}), ranks, origins)
    return rehearse(run.parts, run.corpus)
