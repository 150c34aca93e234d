"""Runs of models with as many segments as the objective tells apart, or with too few."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from megapt.config import Origins
from megapt.errors import ConfigError
from megapt.training.prepared import prepare
from tests.ranks import run_ranks
from tests.training.runs import (
    ALONE,
    last_weights,
    records_of,
    run_config,
    train,
    train_with_signal,
    without_clock,
)


def test_a_run_without_a_table_goes_on_as_if_it_had_not_been_stopped(
    corpus_folder: Path, tmp_path: Path
) -> None:
    unbroken, stopped = (
        run_config(corpus_folder, tmp_path / name, model={"num_segments": 0})
        for name in ("unbroken", "stopped")
    )
    run_ranks(1, train, unbroken)
    assert run_ranks(1, train_with_signal, stopped, signal.SIGTERM, 3) == [None]
    run_ranks(1, train, stopped)
    assert without_clock(records_of(stopped)) == without_clock(records_of(unbroken))
    found, expected = last_weights(stopped), last_weights(unbroken)
    assert found.keys() == expected.keys()
    assert not [name for name in found if "segments" in name]
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "sop"},
        {"name": "mixture", "members": {"arlm": {"name": "arlm"}, "mgm": {"name": "mgm"}}},
    ],
    ids=lambda section: section["name"],
)
@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_rows_than_segments_are_refused(
    corpus_folder: Path, tmp_path: Path, objective: dict[str, object], rows: int
) -> None:
    config = run_config(
        corpus_folder, tmp_path / "run", objective=objective, model={"num_segments": rows}
    )
    with pytest.raises(ConfigError) as raised:
        prepare(config, ALONE, Origins({"model.num_segments": "run.yaml:5"}))
    name = objective["name"]
    assert str(raised.value) == (
        f"run.yaml:5: model.num_segments: {rows} is too few: '{name}' distinguishes 2 segments; "
        f"set it to 2"
    )
    assert not (tmp_path / "run").exists()
