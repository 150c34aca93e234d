"""What is shown of a run: records, TensorBoard, the console, Prometheus, traces."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig, is_due
from megapt.data.budget import Spent
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.monitoring.board import Board
from megapt.monitoring.groups import GroupNorms
from megapt.monitoring.metrics import CLOCK, EVENT, Metrics, MetricsWriter
from megapt.monitoring.peaks import device_peak
from megapt.monitoring.profiling import Profiler
from megapt.monitoring.progress import TrainingProgress
from megapt.monitoring.prometheus import PrometheusFile
from megapt.monitoring.throughput import StepTimes, Throughput


class _Outputs:
    """What the first rank alone writes."""

    def __init__(self, folder: RunFolder, config: RunConfig, resume_step: int) -> None:
        self.metrics = MetricsWriter(folder.metrics_file, resume_step)
        self.board = Board(folder.folder / "tensorboard", resume_step)
        self.board.describe(config)
        self.prometheus: PrometheusFile | None = None
        if config.monitor.prometheus is not None:
            file = Path(config.monitor.prometheus)
            earlier = [record["kind"] for record in self.metrics.kept if record["split"] == EVENT]
            self.prometheus = PrometheusFile(file, folder.folder.name, Counter(earlier))

    def close(self) -> None:
        self.metrics.close()
        self.board.close()


class Monitor:
    """Watches one run; each rank holds one, and the first writes.

    Args:
        folder: of the run; it exists.
        config: of the run.
        ranks: of the job.
        resume_step: steps that are done; what was recorded after them is dropped.
        spent: until then.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, ranks: Ranks, resume_step: int, spent: Spent
    ) -> None:
        monitor = config.monitor
        self._config = config
        self._ranks = ranks
        self._outputs = _Outputs(folder, config, resume_step) if ranks.main else None
        self._progress = TrainingProgress(folder.folder.name, ranks.main)
        self._progress.begin(spent.share(config.training.budget))
        peak = monitor.peak_flops or device_peak(ranks.device, config.training.precision)
        self._throughput = Throughput(ranks, peak, spent.as_dict())
        self._norms = GroupNorms(ranks) if monitor.groups else None
        self._groups: dict[str, float] = {}
        self._validation = 0.0
        self._profiler: Profiler | None = None
        if ranks.main and monitor.profile_from > resume_step:
            place, count = folder.folder / "profile", monitor.profile_steps
            self._profiler = Profiler(place, monitor.profile_from, count, ranks.device)

    def begin(self, step: int) -> None:
        """Note that `step`, counted from 1, is about to be done."""
        if self._profiler is not None:
            self._profiler.before(step)

    def before_update(self, step: int, engine: Engine) -> None:
        """Look at gradients and weights between the last backward pass of `step` and its update."""
        if self._norms is not None and is_due(step, self._config.training.log_every):
            self._norms.before(engine)

    def after_update(self, step: int, engine: Engine) -> None:
        """Look at the weights after the update of `step`."""
        if self._norms is not None and is_due(step, self._config.training.log_every):
            self._groups = self._norms.after(engine)
        if is_due(step, self._config.monitor.histograms_every):
            for name, weights in engine.full_parameters():
                if self._outputs is not None:
                    self._outputs.board.histogram(name, weights, step)

    def step(self, step: int, seconds: StepTimes) -> None:
        """Keep the times of one step, now done."""
        self._throughput.add(seconds)
        if self._profiler is not None:
            self._profiler.after(step)

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
        spent = Spent(**{axis: values[axis] for axis in Spent().as_dict()})
        clock = {"time": time.time(), **self._throughput.record(spent.as_dict())}
        record = {**values, CLOCK: clock}
        if self._groups:
            record["groups"], self._groups = self._groups, {}
        share = spent.share(self._config.training.budget)
        self._write("train", step, record, share)
        self._progress.update(share, step, _note(record))

    def valid(self, step: int, values: Metrics, samples: Sequence[str] = ()) -> None:
        """Write a record of a validation, and what the model wrote."""
        spent = Spent(**{axis: values[axis] for axis in Spent().as_dict()})
        clock = {"time": time.time(), "seconds": self._validation}
        record: Metrics = {**values, CLOCK: clock}
        if samples:
            record["samples"] = list(samples)
        self._write("valid", step, record, spent.share(self._config.training.budget))
        if self._outputs is not None:
            self._outputs.board.texts(step, samples)

    def event(self, step: int, kind: str, **what: Any) -> None:
        """Write down that something happened: skipped, spike, rollback, checkpoint, resumed, …"""
        if self._outputs is None:
            return
        self._outputs.metrics.event(step, kind, {**what, CLOCK: {"time": time.time()}})
        if self._outputs.prometheus is not None:
            self._outputs.prometheus.event(kind)

    def _write(self, split: str, step: int, record: Metrics, share: float) -> None:
        if self._outputs is None:
            return
        if self._outputs.metrics.write(split, step, record):
            self._outputs.board.scalars(split, step, record)
        if self._outputs.prometheus is not None:
            self._outputs.prometheus.record(split, {"step": step, **record}, share)

    def close(self) -> None:
        """Close all files and take the bar away."""
        self._progress.close()
        if self._profiler is not None:
            self._profiler.close()
        if self._outputs is not None:
            self._outputs.close()


def _note(record: Metrics) -> str:
    """Return the figures of a record that the console shows."""
    clock, loss = record[CLOCK], record.get("loss")
    parts = [] if loss is None else [f"loss {loss:.3f}"]
    parts.append(f"{clock['tokens_per_second']:,.0f} tokens/s")
    if "utilisation" in clock:
        parts.append(f"MFU {clock['utilisation']:.1%}")
    return "  ".join(parts)
