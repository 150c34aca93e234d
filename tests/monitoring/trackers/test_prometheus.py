"""The text file is what Prometheus reads, by the rules of its page on the format."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.data.budget import Spent
from megapt.errors import ConfigError
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.throughput import StepTimes
from megapt.monitoring.trackers import check_trackers, find_trackers
from megapt.monitoring.trackers.prometheus import Prometheus, PrometheusConfig
from tests.monitoring.trackers.starting import start
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
    (tmp_path / run).mkdir()
    file = tmp_path / "megapt.prom"
    prometheus = Prometheus(PrometheusConfig(path=str(file)), start(tmp_path / run))
    train = {
        "loss": math.nan,
        "loss/tokens": 2.5,
        "learning_rate": 1e-3,
        "gradient_norm": math.inf,
        "raw_tokens": 500.0,
        "clock": {"time": 1.7e9, "tokens_per_second": 250.0, "slowest_host": "node7"},
    }
    prometheus.record("train", 12, train)
    prometheus.record("valid", 12, {"loss": 3.0, "loss/tokens": 3.0})
    for kind in ("skipped", "rollback", "skipped"):
        prometheus.event(12, kind, {})
    samples, _ = parse(file.read_text())

    def value(name: str, **labels: str) -> float:
        return samples[f"megapt_{name}", frozenset({("run", run), *labels.items()})]

    assert value("step") == 12
    assert value("budget_share") == 0.25
    assert math.isnan(value("loss", split="train"))
    assert value("loss", split="valid") == 3.0
    assert value("part_loss", split="train", part="tokens") == 2.5
    assert value("gradient_norm") == math.inf
    assert value("raw_tokens_total") == 500
    assert value("tokens_per_second") == 250.0
    assert value("last_record_timestamp_seconds") == 1.7e9
    assert value("events_total", kind="skipped") == 2
    assert value("events_total", kind="rollback") == 1
    assert not [name for name, _ in samples if "host" in name]


def with_file(folder: Path, output: Path, file: Path) -> RunConfig:
    trackers = [{"name": "prometheus", "path": str(file)}]
    return run_config(folder, output, monitor={"trackers": trackers})


def test_a_run_keeps_its_file_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "textfile" / "run.prom"
    file.parent.mkdir()
    config = with_file(tmp_path, tmp_path / "run", file)
    trackers = find_trackers(config, Origins())
    run = frozenset({("run", "run")})
    for first in (1, 3):
        spent = Spent(100.0 * first, 1.0, 1.0, 1.0, float(first))
        monitor = Monitor(RunFolder(config.output), config, trackers, ALONE, first - 1, spent)
        monitor.step(StepTimes(0.1, 0.2, 0.3))
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


def test_a_resumed_run_shows_where_it_stands_before_its_first_record(tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    config = with_file(tmp_path, tmp_path, file)
    trackers = find_trackers(config, Origins())
    spent = Spent(500.0, 1.0, 1.0, 1.0, 1.0)
    first = Monitor(RunFolder(tmp_path), config, trackers, ALONE, 0, Spent())
    first.train(5, {"loss": 2.0, **spent.as_dict()})
    first.close()
    file.unlink()
    again = Monitor(RunFolder(tmp_path), config, trackers, ALONE, 5, spent)
    again.event(5, "resumed")
    again.close()
    samples, _ = parse(file.read_text())
    run = frozenset({("run", tmp_path.name)})
    assert samples["megapt_step", run] == 5
    assert samples["megapt_loss", run | {("split", "train")}] == 2.0


def test_a_folder_is_refused(tmp_path: Path) -> None:
    trackers = find_trackers(with_file(tmp_path, tmp_path, tmp_path), Origins())
    with pytest.raises(ConfigError, match=r"^monitor\.trackers\.0: 'prometheus': .*: is a folder"):
        check_trackers(trackers, ALONE, Origins())


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gone" / "run.prom"
    trackers = find_trackers(with_file(tmp_path, tmp_path, file), Origins())
    with pytest.raises(ConfigError, match=r"monitor\.trackers\.0: .*gone: no such folder"):
        check_trackers(trackers, ALONE, Origins())
    file.parent.mkdir()
    check_trackers(trackers, ALONE, Origins())


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({}, r"monitor\.trackers\.0\.path: this key is required"),
        ({"path": ""}, r"monitor\.trackers\.0\.path: .*at least 1 character"),
        ({"paht": "x"}, r"monitor\.trackers\.0\.paht: unknown key; did you mean 'path'"),
    ],
)
def test_its_file_has_to_be_named(tmp_path: Path, own: dict[str, str], says: str) -> None:
    trackers = ["jsonl", {"name": "prometheus", **own}][::-1]
    config = run_config(tmp_path, tmp_path, monitor={"trackers": trackers})
    with pytest.raises(ConfigError, match=says):
        find_trackers(config, Origins())
