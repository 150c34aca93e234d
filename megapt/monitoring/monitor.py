"""What is shown of a run: its records and events to the trackers, its progress on the console."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.data.budget import Spent
from megapt.distributed.ranks import Ranks
from megapt.monitoring.metrics import CLOCK, EVENT, Metrics, budget_share, read_metrics
from megapt.monitoring.peaks import device_peak
from megapt.monitoring.progress import TrainingProgress
from megapt.monitoring.throughput import StepTimes, Throughput
from megapt.monitoring.trackers import Start, Tracker, Trackers
from megapt.monitoring.trackers.jsonl import JsonLines

log = logging.getLogger("megapt.monitoring")


class Monitor:
    """Watches one run; each rank holds one, and the first has the trackers.

    Args:
        folder: of the run; it exists.
        config: of the run.
        trackers: that the configuration names.
        ranks: of the job.
        step: steps that are done; what was recorded after them is dropped.
        spent: until then.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        trackers: Trackers,
        ranks: Ranks,
        step: int,
        spent: Spent,
    ) -> None:
        self._config = config
        self._trackers: list[Tracker] = []
        self._failing: set[str] = set()
        self._written: set[tuple[str, int]] = set()
        if ranks.main:
            kept = [
                record for record in read_metrics(folder.metrics_file) if record["step"] <= step
            ]
            # A run that died between its last record and its summary comes by that step again.
            self._written = {(r["split"], r["step"]) for r in kept if r["split"] != EVENT}
            self._begin(trackers, Start(folder.folder, config, step, kept))
        self._progress = TrainingProgress(folder.folder.name, ranks.main)
        self._progress.begin(spent.share(config.training.budget))
        peak = config.monitor.peak_flops or device_peak(ranks.device, config.training.precision)
        self._throughput = Throughput(ranks, peak, spent.as_dict())
        self._validation = 0.0

    def _begin(self, trackers: Trackers, start: Start) -> None:
        """Build the trackers: first that of metrics.jsonl, without which no run is resumed."""
        for kind, own in sorted(trackers, key=lambda tracker: tracker[0] is not JsonLines):
            try:
                self._trackers.append(kind(own, start))
            except OSError as error:
                if kind is JsonLines:
                    raise
                reason = _reason(error)
                log.warning("tracker '%s': %s; training goes on without it", kind.name, reason)

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            self._tell_one(tracker, tell)

    def _tell_one(self, tracker: Tracker, tell: Callable[[Tracker], None]) -> None:
        """Tell a tracker; a run does not end because it cannot write."""
        try:
            tell(tracker)
        except OSError as error:
            if tracker.name not in self._failing:
                log.warning("tracker '%s': %s; training goes on", tracker.name, _reason(error))
            self._failing.add(tracker.name)
        else:
            self._failing.discard(tracker.name)

    def step(self, seconds: StepTimes) -> None:
        """Keep the times of one step, now done."""
        self._throughput.add(seconds)

    @contextmanager
    def pause(self, doing: str) -> Iterator[None]:
        """Count the seconds inside, between steps, as those of a "validation" or "checkpoint"."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._throughput.pause(doing, seconds)
        if doing == "validation":
            self._validation = seconds

    def train(self, step: int, values: Metrics) -> None:
        """Write a record of training. All ranks call together.

        Args:
            step: steps that are done.
            values: with the five budget axes among them.
        """
        spent = {axis: values[axis] for axis in Spent().as_dict()}
        clock = {"time": time.time(), **self._throughput.record(spent)}
        record = {**values, CLOCK: clock}
        self._record("train", step, record)
        share = budget_share(record, self._config.training.budget)
        self._progress.update(share, step, _note(record))

    def validation(self, step: int, values: Metrics) -> None:
        """Write a record of a validation."""
        clock = {"time": time.time(), "seconds": self._validation}
        self._record("valid", step, {**values, CLOCK: clock})

    def event(self, step: int, kind: str, **what: Any) -> None:
        """Write down that something happened: skipped, spike, rollback, checkpoint, resumed, …"""
        values = {**what, CLOCK: {"time": time.time()}}
        self._tell(lambda tracker: tracker.event(step, kind, values))

    def histogram(self, step: int, name: str, weights: Tensor) -> None:
        """Show how the weights of one parameter are spread."""
        if self._trackers:
            values = weights.detach().float().cpu()
            self._tell(lambda tracker: tracker.histogram(step, name, values))

    def _record(self, split: str, step: int, record: Metrics) -> None:
        if (split, step) not in self._written:
            self._tell(lambda tracker: tracker.record(split, step, record))

    def close(self) -> None:
        """Close all trackers and take the bar away."""
        with ExitStack() as stack:
            stack.callback(self._progress.close)
            for tracker in self._trackers:
                stack.callback(self._tell_one, tracker, lambda tracker: tracker.close())


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _note(record: Metrics) -> str:
    """Return the figures of a record that the console shows."""
    clock, loss = record[CLOCK], record.get("loss")
    parts = [] if loss is None else [f"loss {loss:.3f}"]
    parts.append(f"{clock['tokens_per_second']:,.0f} tokens/s")
    if "utilization" in clock:
        parts.append(f"MFU {clock['utilization']:.1%}")
    return "  ".join(parts)
