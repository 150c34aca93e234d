"""Output of a run: records and events for the trackers, progress on the console."""

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
    """Reports one run. Each rank has a monitor; only that of the first rank has trackers.

    Args:
        folder: folder of the run; it exists.
        config: configuration of the run.
        trackers: trackers that the configuration names.
        ranks: ranks of the job.
        step: steps completed; records of later steps are removed.
        spent: amounts spent up to this step.
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
            # A run that died between its last record and its summary repeats its last step.
            self._written = {(r["split"], r["step"]) for r in kept if r["split"] != EVENT}
            self._begin(trackers, Start(folder.folder, config, step, kept))
        self._progress = TrainingProgress(folder.folder.name, ranks.main)
        self._progress.begin(spent.share(config.training.budget))
        peak = config.monitor.peak_flops or device_peak(ranks.device, config.training.precision)
        self._throughput = Throughput(ranks, peak, spent.as_dict())
        self._validation = 0.0

    def _begin(self, trackers: Trackers, start: Start) -> None:
        """Build the trackers; metrics.jsonl comes first, because no run resumes without it."""
        for kind, own in sorted(trackers, key=lambda tracker: tracker[0] is not JsonLines):
            try:
                self._trackers.append(kind(own, start))
            except OSError as error:
                if kind is JsonLines:
                    raise
                reason = _reason(error)
                log.warning("tracker '%s': %s; training continues without it", kind.name, reason)

    def _call_all(self, call: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            self._call(tracker, call)

    def _call(self, tracker: Tracker, call: Callable[[Tracker], None]) -> None:
        """Call a tracker; if it cannot write, warn and continue."""
        try:
            call(tracker)
        except OSError as error:
            if tracker.name not in self._failing:
                log.warning("tracker '%s': %s; training continues", tracker.name, _reason(error))
            self._failing.add(tracker.name)
        else:
            self._failing.discard(tracker.name)

    def step(self, seconds: StepTimes) -> None:
        """Add the times of one completed step."""
        self._throughput.add(seconds)

    @contextmanager
    def pause(self, doing: str) -> Iterator[None]:
        """Count the seconds inside as a pause between steps: "validation" or "checkpoint"."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._throughput.pause(doing, seconds)
        if doing == "validation":
            self._validation = seconds

    def train(self, step: int, values: Metrics) -> None:
        """Write a record of training. All ranks call together.

        Args:
            step: steps completed.
            values: values of the record, including the five budget axes.
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
        """Record an event, such as a skipped update, a rollback or a resume."""
        values = {**what, CLOCK: {"time": time.time()}}
        self._call_all(lambda tracker: tracker.event(step, kind, values))

    def histogram(self, step: int, name: str, weights: Tensor) -> None:
        """Record a histogram of the weights of one parameter."""
        if self._trackers:
            values = weights.detach().float().cpu()
            self._call_all(lambda tracker: tracker.histogram(step, name, values))

    def _record(self, split: str, step: int, record: Metrics) -> None:
        if (split, step) not in self._written:
            self._call_all(lambda tracker: tracker.record(split, step, record))

    def close(self) -> None:
        """Close all trackers and remove the progress bar."""
        with ExitStack() as stack:
            stack.callback(self._progress.close)
            for tracker in self._trackers:
                stack.callback(self._call, tracker, lambda tracker: tracker.close())


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _note(record: Metrics) -> str:
    """Return the numbers of a record that the console shows."""
    clock, loss = record[CLOCK], record.get("loss")
    parts = [] if loss is None else [f"loss {loss:.3f}"]
    parts.append(f"{clock['tokens_per_second']:,.0f} tokens/s")
    if "utilization" in clock:
        parts.append(f"MFU {clock['utilization']:.1%}")
    return "  ".join(parts)
