"""The text file is what Prometheus reads, by the rules of its page on the format."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins
from megapt.data.budget import Spent
from megapt.errors import ConfigError
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.prometheus import PrometheusFile, check_prometheus
from megapt.monitoring.throughput import StepTimes
from tests.training.runs import ALONE, run_config

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(text: str) -> tuple[Samples, dict[str, str]]:
    """Return samples, and the type of each metric; refuse what the format does not allow."""
    assert text.endswith("\n")
    samples: Samples = {}
    types: dict[str, str] = {}
    helped: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.append(line.split(" ")[2])
            assert len(helped) == len(set(helped))
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == helped[-1], "HELP stands before TYPE"
            assert kind in ("gauge", "counter")
            types[name] = kind
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            name, inside, value = match.groups()
            assert name == helped[-1], "the samples of a metric stand together"
            assert _LABEL.sub("", inside) == "", inside
            labels = frozenset(
                (key, re.sub(r"\\.", lambda found: _ESCAPES[found[0]], raw))
                for key, raw in _LABEL.findall(inside)
            )
            assert (name, labels) not in samples
            samples[name, labels] = float(value)  # takes NaN, +Inf and -Inf too
    for name, kind in types.items():
        assert name.endswith("_total") == (kind == "counter")
    return samples, types


def test_a_file_is_what_prometheus_reads(tmp_path: Path) -> None:
    run = 'odd "name"\\with\nall'
    file = tmp_path / "megapt.prom"
    prometheus = PrometheusFile(file, run, {"skipped": 1})
    train = {
        "step": 12,
        "loss": math.nan,
        "loss/tokens": 2.5,
        "learning_rate": 1e-3,
        "gradient_norm": math.inf,
        "raw_tokens": 5000,
        "clock": {"time": 1.7e9, "tokens_per_second": 250.0, "slowest_host": "node7"},
    }
    prometheus.record("train", train, 0.25)
    prometheus.record("valid", {"step": 12, "loss": 3.0, "loss/tokens": 3.0}, 0.25)
    prometheus.event("skipped")
    prometheus.event("rollback")
    samples, _ = parse(file.read_text())

    def value(name: str, **labels: str) -> float:
        return samples[f"megapt_{name}", frozenset({("run", run), *labels.items()})]

    assert value("step") == 12
    assert value("budget_share") == 0.25
    assert math.isnan(value("loss", split="train"))
    assert value("loss", split="valid") == 3.0
    assert value("part_loss", split="train", part="tokens") == 2.5
    assert value("gradient_norm") == math.inf
    assert value("raw_tokens_total") == 5000
    assert value("tokens_per_second") == 250.0
    assert value("last_record_timestamp_seconds") == 1.7e9
    assert value("events_total", kind="skipped") == 2
    assert value("events_total", kind="rollback") == 1
    assert not [name for name, _ in samples if "host" in name]


def test_a_run_keeps_its_file_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "textfile" / "run.prom"
    file.parent.mkdir()
    config = run_config(tmp_path, tmp_path / "run", monitor={"prometheus": str(file)})
    run = frozenset({("run", "run")})
    for first in (1, 3):
        spent = Spent(100.0 * first, 1.0, 1.0, 1.0, float(first))
        monitor = Monitor(RunFolder(config.output), config, ALONE, first - 1, spent)
        monitor.step(first, StepTimes(0.1, 0.2, 0.3))
        monitor.train(first, {"loss": 2.0, **spent.as_dict()})
        monitor.event(first, "checkpoint")
        monitor.close()
        samples, types = parse(file.read_text())
        assert types["megapt_step"] == "gauge"
        assert samples["megapt_step", run] == first
        assert samples["megapt_budget_share", run] == pytest.approx(first / 20)
        assert samples["megapt_data_wait_share", run] == pytest.approx(0.1 / 0.6)
        # Those of the earlier start count too.
        counted = samples["megapt_events_total", run | {("kind", "checkpoint")}]
        assert counted == (1 if first == 1 else 2)
    assert [path.name for path in file.parent.iterdir()] == ["run.prom"]


def test_a_file_that_cannot_be_written_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prometheus = PrometheusFile(tmp_path / "gone" / "run.prom", "run", {})
    for step in (1, 2):
        prometheus.record("train", {"step": step}, 0.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("megapt: warning: ")
    assert line.endswith("run.prom is out of date: No such file or directory")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path, tmp_path, monitor={"prometheus": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"monitor\.prometheus: .*: is a folder"):
        check_prometheus(config, ALONE, Origins())


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gone" / "run.prom"
    config = run_config(tmp_path, tmp_path, monitor={"prometheus": str(file)})
    with pytest.raises(ConfigError, match=r"monitor\.prometheus: .*gone: no such folder"):
        check_prometheus(config, ALONE, Origins())
    file.parent.mkdir()
    check_prometheus(config, ALONE, Origins())
