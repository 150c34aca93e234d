"""A short soak: each kind of fault once, and the run is still the undisturbed one, bit by bit."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import soak


def test_a_run_under_every_kind_of_fault_is_the_undisturbed_one(
    corpus_folder: Path, tmp_path: Path
) -> None:
    done, wrong = soak(corpus_folder, tmp_path, faults=5, steps=100, seed=2)
    assert not wrong
    assert sum(done.values()) == 5
    assert {"killed rank", "killed launcher", "terminated", "damaged"} <= set(done)
