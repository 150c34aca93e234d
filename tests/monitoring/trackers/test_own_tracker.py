"""Trackers by name, from files of the user's own, and what becomes of their faults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, load_config, validate
from megapt.config.run import RunConfig
from megapt.data.budget import Spent
from megapt.errors import ConfigError
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.trackers import TRACKERS, find_trackers
from tests.training.runs import ALONE, run_config

MINE = """
from megapt.monitoring.trackers import Tracker

told = []


class Mine(Tracker):
    name = "mine"

    def __init__(self, own, start):
        self.start = start

    def record(self, split, step, values):
        {record}

    def close(self):
        told.append("closed")
"""


def monitor_of(folder: Path, record: str) -> tuple[Monitor, list[str]]:
    """That of a run with a tracker of the user's own, and the list that it writes to."""
    file = folder / "mine.py"
    file.write_text(MINE.format(record=record), encoding="utf-8")
    trackers = [{"name": "mine", "file": str(file)}]
    config = run_config(folder, folder, monitor={"trackers": trackers})
    found = find_trackers(config, Origins())
    assert [kind.name for kind, _ in found] == ["mine", "jsonl"]
    told: list[str] = vars(sys.modules[found[0][0].__module__])["told"]
    return Monitor(RunFolder(folder), config, found, ALONE, 0, Spent()), told


def record(monitor: Monitor, step: int) -> None:
    monitor.validation(step, {"loss": 1.0})


def test_it_is_told_of_each_record_once_and_closed(tmp_path: Path) -> None:
    monitor, told = monitor_of(tmp_path, 'told.append(f"{split} {step} {sorted(values)}")')
    for step in (1, 2):
        record(monitor, step)
    monitor.close()
    assert told == [*(f"valid {step} ['clock', 'loss']" for step in (1, 2)), "closed"]


def test_a_place_that_is_away_is_warned_of_once_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault = "if step not in (4, 5): raise ConnectionError('no route to the server')"
    monitor, told = monitor_of(tmp_path, fault)
    for step in range(1, 8):
        record(monitor, step)
    monitor.close()
    assert caplog.messages == ["tracker 'mine': no route to the server; training continues"] * 2
    assert told == ["closed"]


def test_a_mistake_in_it_is_no_weather(tmp_path: Path) -> None:
    monitor, _ = monitor_of(tmp_path, "values['lost']")
    with pytest.raises(KeyError, match="lost"):
        record(monitor, 1)


@pytest.mark.parametrize(
    ("trackers", "says"),
    [
        (["tensorbord"], r"monitor.trackers.0.name: no tracker named 'tensorbord'; did you mean"),
        (["a/b"], "monitor.trackers: a name may have only letters"),
        (["xyz"], "valid: jsonl, prometheus, tensorboard"),
        ([{"name": "mine", "file": "none.py"}], r"monitor.trackers.0.file: .*none.py: no such"),
        ([{"name": "tensorboard", "path": "x"}], r"monitor.trackers.0.path: unknown key"),
    ],
)
def test_a_wrong_one_is_refused_where_it_stands(
    tmp_path: Path, trackers: list[Any], says: str
) -> None:
    values = run_config(tmp_path, tmp_path).model_dump()
    values["monitor"]["trackers"] = trackers
    with pytest.raises(ConfigError, match=says):
        find_trackers(validate(RunConfig, values, Origins()), Origins())
    assert set(TRACKERS) == {"jsonl", "prometheus", "tensorboard"}


def test_its_line_is_named_and_its_file_found_beside_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine.py").write_text(MINE.format(record="pass"), encoding="utf-8")
    file = tmp_path / "there/run.yaml"
    file.write_text(
        "output: x\ndata: {corpus: c}\nmodel: modern-tiny\nobjective: arlm\n"
        "training: {budget: {amount: 1}}\n"
        "monitor:\n  trackers:\n    - tensorboard\n    - {name: mine, file: mine.py}\n"
        "    - {name: prometheus, paht: x}\n",
        encoding="utf-8",
    )
    config, origins = load_config(RunConfig, file)
    with pytest.raises(ConfigError, match=r"run.yaml:10: monitor.trackers.2.paht: unknown key"):
        find_trackers(config, origins)
    assert config.monitor.trackers[1].file == str(tmp_path / "there/mine.py")


def test_one_that_cannot_begin_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("in its way")
    config = run_config(tmp_path, tmp_path)
    monitor = Monitor(
        RunFolder(tmp_path), config, find_trackers(config, Origins()), ALONE, 0, Spent()
    )
    record(monitor, 1)
    monitor.close()
    [warning] = caplog.messages
    assert warning.startswith("tracker 'tensorboard': ")
    assert warning.endswith("training continues without it")
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1


def test_a_list_in_a_file_takes_the_place_and_the_lines_of_that_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "output: x\ndata: {corpus: c}\nmodel: modern-tiny\nobjective: arlm\n"
        "training: {budget: {amount: 1}}\n"
        "monitor:\n  trackers:\n    - {name: prometheus, path: x}\n",
        encoding="utf-8",
    )
    file = tmp_path / "run.yaml"
    file.write_text("base: base.yaml\nmonitor: {trackers: [{name: prometheus}]}\n")
    config, origins = load_config(RunConfig, file)
    with pytest.raises(ConfigError, match=r"run.yaml:2: monitor.trackers.0.path: this key is"):
        find_trackers(config, origins)
