"""Configurations that earlier versions stored are read with today's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from megapt.checkpoint.run_folder import RunFolder
from megapt.config.migration import migrated
from tests.training.runs import run_config


@pytest.mark.parametrize(
    ("path", "trackers"),
    [
        (None, ["jsonl", "tensorboard"]),
        ("x.prom", ["jsonl", "tensorboard", {"name": "prometheus", "path": "x.prom"}]),
    ],
)
def test_the_file_of_prometheus_is_a_setting_of_its_tracker(
    tmp_path: Path, path: str | None, trackers: list[Any]
) -> None:
    values = run_config(tmp_path, tmp_path).model_dump()
    values["monitor"] = {"norms_by_group": True, "prometheus": path}
    before = yaml.safe_dump(values)
    (tmp_path / "config.yaml").write_text(before, encoding="utf-8")
    monitor = RunFolder(tmp_path).load_config().monitor
    assert monitor.norms_by_group
    assert [tracker.name for tracker in monitor.trackers] == [
        tracker if isinstance(tracker, str) else tracker["name"] for tracker in trackers
    ]
    assert migrated(values)["monitor"] == {"norms_by_group": True, "trackers": trackers}
    assert yaml.safe_dump(values) == before


def test_what_is_of_this_version_stays(tmp_path: Path) -> None:
    values = run_config(tmp_path, tmp_path).model_dump()
    assert migrated(values) == values
