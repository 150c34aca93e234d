"""`megapt train --dry-run`, and the plan's memory beside the memory that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.plan import CASES, compare
from megapt.config import Origins, RunConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.planning.rehearsal import Rehearsal, dry_run
from tests.ranks import run_ranks
from tests.training.runs import run_config

SMOKE = ("arlm, stage 1, bf16, full", "mlm, stage 0, selective")


def rehearsed(ranks: Ranks, config: RunConfig) -> Rehearsal:
    return dry_run(config, ranks, Origins())


def refusal(ranks: Ranks, config: RunConfig) -> str:
    with pytest.raises(ConfigError) as error:
        dry_run(config, ranks, Origins())
    return str(error.value)


@pytest.mark.parametrize(
    ("world", "sections"),
    [
        (1, {"objective": {"name": "mlm"}}),
        (2, {"parallel": {"zero_stage": 2}, "training": {"micro_batch_size": 1}}),
    ],
)
def test_it_does_an_update_and_writes_nothing(
    corpus_folder: Path, tmp_path: Path, world: int, sections: dict[str, Any]
) -> None:
    config = run_config(corpus_folder, tmp_path / "run", **sections)
    results = run_ranks(world, rehearsed, config)
    assert all(result == results[0] for result in results)
    found = results[0]
    assert found.parameters > 1000
    assert found.peak_bytes > 4 * found.parameters
    text = 8 * 48  # global_batch_size x window
    assert found.tokens_per_second == pytest.approx(text / found.step_seconds)
    assert "raw tokens/s" in "\n".join(found.lines())
    assert found.as_dict()["peak_bytes"] == found.peak_bytes
    assert list(tmp_path.iterdir()) == []


def test_it_refuses_what_training_refuses(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run", training={"micro_batch_size": 3})
    assert run_ranks(1, refusal, config)[0].startswith("training.global_batch_size: 8 windows")


@pytest.mark.parametrize("case", SMOKE)
def test_the_plan_knows_the_memory(case: str) -> None:
    planned, measured = compare(case)
    assert planned == pytest.approx(measured, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in SMOKE])
def test_the_plan_knows_the_memory_of_all_stages(case: str) -> None:
    planned, measured = compare(case)
    assert planned == pytest.approx(measured, rel=0.15)
