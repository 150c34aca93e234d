"""What metrics.jsonl holds: JSON that every reader takes, and each step once."""

from __future__ import annotations

from pathlib import Path

import pytest

from megapt.errors import DamagedError
from megapt.monitoring.metrics import read_metrics, without_clock


def test_a_file_is_read_up_to_where_a_crash_cut_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(file) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"", b'{"step": 2'])
def test_a_line_damaged_elsewhere_is_told(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
    with pytest.raises(DamagedError, match=r"metrics\.jsonl: line 2 is corrupt"):
        read_metrics(file)


def test_what_two_runs_have_alike(tmp_path: Path) -> None:
    records = [
        {"split": "train", "step": 1, "loss": 2.0, "wall_clock": 1.0, "clock": {"time": 5.0}},
        {"split": "event", "step": 1, "kind": "resumed"},
    ]
    assert without_clock(records) == [{"split": "train", "step": 1, "loss": 2.0}]
