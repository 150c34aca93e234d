"""State of a run in the text format of Prometheus, for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from megapt.config import Section
from megapt.monitoring.metrics import CLOCK, EVENT, Metrics, budget_share
from megapt.monitoring.trackers.base import Start, Tracker

# metric: (whether it is a counter, key in the training record, help)
_PLAIN = {
    "learning_rate": (False, "learning_rate", "Learning rate of the last recorded step."),
    "gradient_norm": (False, "gradient_norm", "Global gradient norm before clipping."),
    "raw_tokens": (True, "raw_tokens", "Tokens of text read so far."),
    "model_flops": (True, "model_flops", "Model FLOPs computed so far."),
    "training_seconds": (True, "wall_clock", "Seconds in training steps."),
}
_CLOCK = {
    "tokens_per_second": (False, "tokens_per_second", "Raw tokens per second of training."),
    "flops_utilization": (False, "utilization", "Model FLOPs divided by the peak of the devices."),
    "data_wait_share": (False, "data_share", "Share of the time spent waiting for data."),
    "step_seconds_median": (False, "step_p50", "Median seconds of a step."),
    "step_seconds_max": (False, "step_max", "Seconds of the longest step."),
    "memory_bytes": (False, "memory", "Peak memory of any rank, bytes."),
    "slowest_rank": (False, "slowest_rank", "Rank that took longest."),
    "slowest_ratio": (False, "slowest_ratio", "Seconds of the slowest rank divided by the median."),
    "last_record_timestamp_seconds": (False, "time", "Unix time of the last record."),
}


class PrometheusConfig(Section):
    """Settings of the tracker `prometheus`."""

    path: Annotated[str, Field(min_length=1)]
    """File to write; its name must end in `.prom` for node_exporter, and its folder must exist."""


class Prometheus(Tracker):
    """Keeps one file up to date. Each write replaces the file atomically."""

    name = "prometheus"
    Config = PrometheusConfig

    @classmethod
    def problem(cls, own: PrometheusConfig) -> str:
        """Refuse a folder, and a file in a folder that does not exist."""
        file = Path(own.path).absolute()
        if file.is_dir():
            return f"{file}: is a folder; name a file in it"
        return "" if file.parent.is_dir() else f"{file.parent}: no such folder; make it"

    def __init__(self, own: PrometheusConfig, start: Start) -> None:
        # This import takes half a second; only the rank that writes needs it.
        from prometheus_client import CollectorRegistry

        self._file = Path(own.path)
        self._run = start.folder.name
        self._budget = start.config.training.budget
        self._records = {record["split"]: record for record in start.records}
        kinds = [record["kind"] for record in start.records if record["split"] == EVENT]
        self._events = Counter(kinds)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def record(self, split: str, step: int, values: Metrics) -> None:
        """Replace the last record of a split."""
        self._records[split] = {"step": step, **values}
        self._write()

    def event(self, step: int, kind: str, values: Metrics) -> None:
        """Count an event."""
        self._events[kind] += 1
        self._write()

    def _write(self) -> None:
        from prometheus_client import write_to_textfile

        write_to_textfile(str(self._file), self._registry)

    def _family(
        self,
        kind: Any,
        name: str,
        text: str,
        samples: Mapping[tuple[str, ...], Any],
        labels: str = "",
    ) -> Iterator[Any]:
        """Yield a metric if it has any number; `samples` maps values of `labels` to numbers."""
        family = kind(f"megapt_{name}", text, labels=["run", *labels.split()])
        for values, number in samples.items():
            if isinstance(number, int | float):
                family.add_metric([self._run, *values], number)
        if family.samples:
            yield family

    def collect(self) -> Iterator[Any]:
        """Yield the metrics; prometheus_client calls this."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        train = self._records.get("train", {})
        gauge = GaugeMetricFamily
        yield from self._family(gauge, "step", "Steps completed.", {(): train.get("step")})
        share = budget_share(train, self._budget) if train else 0.0
        yield from self._family(gauge, "budget_share", "Share of the budget spent.", {(): share})
        losses: dict[tuple[str, ...], Any] = {}
        parts: dict[tuple[str, ...], Any] = {}
        for split in self._records.keys() & {"train", "valid"}:
            losses[split,] = self._records[split].get("loss")
            for name, value in self._records[split].items():
                if name.startswith("loss/"):
                    parts[split, name[5:]] = value
        yield from self._family(gauge, "loss", "Loss, nats.", losses, "split")
        yield from self._family(gauge, "part_loss", "Loss of a part, nats.", parts, "split part")
        for table, values in ((_PLAIN, train), (_CLOCK, train.get(CLOCK, {}))):
            for name, (is_counter, key, text) in table.items():
                kind = CounterMetricFamily if is_counter else gauge
                yield from self._family(kind, name, text, {(): values.get(key)})
        kinds: dict[tuple[str, ...], Any] = {(kind,): n for kind, n in self._events.items()}
        text = "Events: skipped, rollback, …"
        yield from self._family(CounterMetricFamily, "events", text, kinds, "kind")
