"""The state of a run in Prometheus' text format, for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megapt.config import Origins, RunConfig
from megapt.distributed.ranks import Ranks
from megapt.monitoring.metrics import CLOCK, Metrics

# metric: (type, key of the training record, help)
_PLAIN = {
    "learning_rate": ("gauge", "learning_rate", "Learning rate of the last recorded step."),
    "gradient_norm": ("gauge", "gradient_norm", "Global gradient norm before clipping."),
    "raw_tokens_total": ("counter", "raw_tokens", "Tokens of text that were read."),
    "model_flops_total": ("counter", "model_flops", "Floating-point operations asked for."),
    "training_seconds_total": ("counter", "wall_clock", "Seconds in training steps."),
}
_CLOCK = {
    "tokens_per_second": ("gauge", "tokens_per_second", "Raw tokens a second of training."),
    "flops_utilisation": ("gauge", "utilisation", "Model FLOPs over those of the devices."),
    "data_wait_share": ("gauge", "data_share", "Share of the time that waits for data."),
    "step_seconds_median": ("gauge", "step_p50", "Median seconds of a step."),
    "step_seconds_max": ("gauge", "step_max", "Seconds of the longest step."),
    "memory_bytes": ("gauge", "memory", "Most bytes that a rank has held at once."),
    "slowest_rank": ("gauge", "slowest_rank", "Rank that took longest."),
    "slowest_ratio": ("gauge", "slowest_ratio", "Its seconds over the median of all ranks."),
    "last_record_timestamp_seconds": ("gauge", "time", "Unix time of the last record."),
}


def _number(value: float) -> str:
    """Write a number as the format has it: `+Inf`, `-Inf` and `NaN` too."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def check_prometheus(config: RunConfig, ranks: Ranks, origins: Origins) -> None:
    """Refuse a file in a folder that is not there, and a folder.

    Raises:
        ConfigError: on every rank.
    """
    with ranks.together():
        if ranks.main and config.monitor.prometheus is not None:
            file = Path(config.monitor.prometheus).absolute()
            if file.is_dir():
                raise origins.error("monitor.prometheus", f"{file}: is a folder; name a file in it")
            if not file.parent.is_dir():
                raise origins.error("monitor.prometheus", f"{file.parent}: no such folder; make it")


class PrometheusFile:
    """Keeps one file up to date; a reader sees the old one or the new one.

    Args:
        file: ends in `.prom` for node_exporter; its folder exists.
        run: name of the run, the label of all its metrics.
        events: kind -> how often there was one in earlier starts of the run.
    """

    def __init__(self, file: Path, run: str, events: Mapping[str, int]) -> None:
        self._file = file
        self._run = run
        self._records: dict[str, Metrics] = {}
        self._share = 0.0
        self._events = dict(events)
        self._told = False

    def record(self, split: str, values: Metrics, share: float) -> None:
        """Take over the last record of a split, and the share of the budget that is spent."""
        self._records[split] = values
        self._share = share
        self._write()

    def event(self, kind: str) -> None:
        """Count an event."""
        self._events[kind] = self._events.get(kind, 0) + 1
        self._write()

    def _write(self) -> None:
        """Write the file; a run does not end because nobody can look at it."""
        beside = self._file.with_name(f"{self._file.name}.partial")
        try:
            # Not flushed to the disk, as what must last is: the next one comes soon.
            beside.write_text(self.text(), encoding="utf-8")
            beside.replace(self._file)
        except OSError as error:
            if not self._told:
                line = f"megapt: warning: {self._file} is out of date: {error.strerror or error}"
                print(line, file=sys.stderr, flush=True)
            self._told = True

    def text(self) -> str:
        """Return the content of the file."""
        train = self._records.get("train", {})
        lines: list[str] = []

        def family(name: str, kind: str, text: str, samples: Mapping[str, Any]) -> None:
            """Add a metric; `samples` is labels beside `run` -> value."""
            found = {k: v for k, v in samples.items() if isinstance(v, int | float)}
            if not found:
                return
            lines.append(f"# HELP megapt_{name} {text}")
            lines.append(f"# TYPE megapt_{name} {kind}")
            for labels, value in found.items():
                joined = ",".join(filter(None, [f'run="{_label(self._run)}"', labels]))
                lines.append(f"megapt_{name}{{{joined}}} {_number(value)}")

        family("step", "gauge", "Steps that are done.", {"": train.get("step")})
        family("budget_share", "gauge", "Share of the budget spent.", {"": self._share})
        losses: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for split, values in self._records.items():
            losses[f'split="{split}"'] = values.get("loss")
            for name, value in values.items():
                if name.startswith("loss/"):
                    parts[f'split="{split}",part="{_label(name[5:])}"'] = value
        family("loss", "gauge", "Loss, nats.", losses)
        family("part_loss", "gauge", "Loss of a part, nats.", parts)
        for table, values in ((_PLAIN, train), (_CLOCK, train.get(CLOCK, {}))):
            for name, (kind, key, text) in table.items():
                family(name, kind, text, {"": values.get(key)})
        kinds = {f'kind="{_label(kind)}"': count for kind, count in self._events.items()}
        family("events_total", "counter", "What happened: skipped, rollback, …", kinds)
        return "\n".join(lines) + "\n"
