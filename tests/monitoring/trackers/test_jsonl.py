"""What metrics.jsonl holds: JSON that every reader takes, and nothing of steps that come again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from megapt.monitoring.metrics import read_metrics
from megapt.monitoring.trackers.jsonl import JsonLines
from tests.monitoring.trackers.starting import start


def test_a_file_resumed_at_a_step_holds_nothing_after_it(tmp_path: Path) -> None:
    first = JsonLines(None, start(tmp_path))
    for step in (1, 2, 3):
        first.record("train", step, {"loss": float(step)})
        first.event(step, "skipped", {})
    first.close()
    again = JsonLines(None, start(tmp_path, 2))
    again.record("valid", 2, {"loss": 5.0})
    again.record("train", 3, {"loss": 30.0})
    again.close()
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["split"], r["step"]) for r in records] == [
        *(("train", 1), ("event", 1), ("train", 2), ("event", 2)),
        *(("valid", 2), ("train", 3)),
    ]
    assert [r["loss"] for r in records if r["split"] == "train"] == [1.0, 2.0, 30.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_named(tmp_path: Path, value: float) -> None:
    writer = JsonLines(None, start(tmp_path))
    writer.record("train", 1, {"loss": value, "lr": 0.5, "groups": {"norm": value}, "n": [value]})
    writer.close()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    event, record = (json.loads(line, parse_constant=refuse) for line in lines)
    assert (event["split"], event["step"], event["kind"]) == ("event", 1, "not_finite")
    assert event["names"] == ["loss", "groups/norm"]
    assert (record["loss"], record["lr"]) == (None, 0.5)
    assert (record["groups"], record["n"]) == ({"norm": None}, [None])
