"""Traces of chosen steps, whole or as far as the run came."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from megapt.monitoring.profiling import Profiler


def profile(folder: Path, first: int, count: int, steps: range) -> list[str]:
    """Do some steps of a run that traces `count` from `first` on; return the names of its files."""
    profiler = Profiler(folder, first, count, torch.device("cpu"))
    for step in steps:
        profiler.before(step)
        torch.ones(8, 8) @ torch.ones(8, 8)
        profiler.after(step)
    profiler.close()
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_chosen_steps_are_traced(tmp_path: Path) -> None:
    names = profile(tmp_path / "profile", 3, 2, range(1, 6))
    assert names == ["steps-3-4.json.gz", "steps-3-4.txt"]
    trace = gzip.decompress((tmp_path / "profile" / names[0]).read_bytes())
    assert json.loads(trace)["traceEvents"]
    assert "aten::mm" in (tmp_path / "profile" / names[1]).read_text()


def test_a_trace_that_the_run_ends_in_has_the_steps_that_were_done(tmp_path: Path) -> None:
    names = profile(tmp_path / "profile", 3, 100, range(1, 5))
    assert names == ["steps-3-4.json.gz", "steps-3-4.txt"]


@pytest.mark.parametrize("steps", [range(1, 3), range(4, 7)])
def test_without_its_first_step_there_is_no_trace(tmp_path: Path, steps: range) -> None:
    """The run ends before it, or is resumed after it."""
    assert profile(tmp_path / "profile", 3, 2, steps) == []


def test_a_step_that_was_not_finished_is_no_trace(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path / "profile", 1, 2, torch.device("cpu"))
    profiler.before(1)
    profiler.close()
    assert not (tmp_path / "profile").exists()
