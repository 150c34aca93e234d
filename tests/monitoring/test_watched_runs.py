"""Real runs on two ranks that are watched closely, and train as if they were not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megapt.config import RunConfig
from megapt.monitoring.metrics import without_clock
from tests.ranks import run_ranks
from tests.training.runs import last_weights, records_of, run_config, train

EVERYTHING = {"norms_by_group": True, "histograms_every": 3, "profile_from": 2, "profile_steps": 1}
GROUPS = {"embeddings", "blocks.0", "final_norm"}


def run_of(corpus: Path, folder: Path, stage: int, monitor: dict[str, Any]) -> RunConfig:
    config = run_config(
        corpus,
        folder,
        parallel={"zero_stage": stage},
        monitor=monitor,
        training={"log_every": 2},
    )
    run_ranks(2, train, config)
    return config


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_watching_changes_nothing(corpus_folder: Path, tmp_path: Path, stage: int) -> None:
    watched = run_of(corpus_folder, tmp_path / "watched", stage, EVERYTHING)
    alone = run_of(corpus_folder, tmp_path / "alone", stage, {})
    records = without_clock(records_of(watched))
    groups = [record.pop("groups", None) for record in records]
    assert records == without_clock(records_of(alone))
    for record, found in zip(records, groups, strict=True):
        # The last record may come out of turn, when nothing was measured.
        assert (found is not None) == (record["split"] == "train" and record["step"] % 2 == 0)
        if found is None:
            continue
        assert {name.split("/")[1] for name in found} == GROUPS
        squares = [found[f"gradient_norm/{group}"] ** 2 for group in GROUPS]
        assert math.sqrt(sum(squares)) == pytest.approx(record["gradient_norm"], rel=1e-5)
        assert all(found[f"update_ratio/{group}"] > 0 for group in GROUPS)

    board = EventAccumulator(str(Path(watched.output) / "tensorboard"), {"histograms": 0})
    board.Reload()
    tags = board.Tags()
    assert "groups/update_ratio/blocks.0" in tags["scalars"]
    assert set(tags["histograms"]) == {f"weights/{name}" for name in last_weights(watched)}
    assert [event.step for event in board.Histograms("weights/trunk.final_norm.weight")] == [3, 6]
    traces = sorted(path.name for path in (Path(watched.output) / "profile").iterdir())
    assert traces == ["steps-2-2.json.gz", "steps-2-2.txt"]
    assert not (Path(alone.output) / "profile").exists()
