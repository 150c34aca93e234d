"""What metrics.jsonl holds: JSON that every reader takes, and each step once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from megapt.errors import DamagedError
from megapt.monitoring.metrics import MetricsWriter, read_metrics, without_clock


def test_a_file_is_read_up_to_where_a_crash_cut_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(file) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"", b'{"step": 2'])
def test_a_line_damaged_elsewhere_is_told(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
    with pytest.raises(DamagedError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_metrics(file)


def test_a_file_resumed_at_a_step_holds_nothing_after_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first = MetricsWriter(file, 0)
    for step in (1, 2, 3):
        first.write("train", step, {"loss": float(step)})
        first.event(step, "skipped", {})
    first.close()
    again = MetricsWriter(file, 2)
    assert [record["step"] for record in again.kept] == [1, 1, 2, 2]
    assert not again.write("train", 2, {"loss": 20.0}), "it is there already"
    assert again.write("valid", 2, {"loss": 5.0})
    assert again.write("train", 3, {"loss": 30.0})
    again.close()
    records = read_metrics(file)
    assert [(r["split"], r["step"]) for r in records] == [
        *(("train", 1), ("event", 1), ("train", 2), ("event", 2)),
        *(("valid", 2), ("train", 3)),
    ]
    assert [r["loss"] for r in records if r["split"] == "train"] == [1.0, 2.0, 30.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_told(tmp_path: Path, value: float) -> None:
    file = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(file, 0)
    writer.write("train", 1, {"loss": value, "lr": 0.5, "groups": {"norm": value}, "n": [value]})
    writer.close()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = file.read_text().splitlines()
    event, record = (json.loads(line, parse_constant=refuse) for line in lines)
    assert (event["split"], event["step"], event["kind"]) == ("event", 1, "not_finite")
    assert event["names"] == ["loss", "groups/norm"]
    assert (record["loss"], record["lr"]) == (None, 0.5)
    assert (record["groups"], record["n"]) == ({"norm": None}, [None])


def test_what_two_runs_have_alike(tmp_path: Path) -> None:
    records = [
        {"split": "train", "step": 1, "loss": 2.0, "wall_clock": 1.0, "clock": {"time": 5.0}},
        {"split": "event", "step": 1, "kind": "resumed"},
    ]
    assert without_clock(records) == [{"split": "train", "step": 1, "loss": 2.0}]
