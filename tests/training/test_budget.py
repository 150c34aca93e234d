"""Budgets: what is counted on the five axes, and where a run ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from megapt.config import BudgetConfig, Origins, RunConfig
from megapt.config.section import Axis
from megapt.data import Counts
from megapt.data.budget import Spent
from megapt.model import training_flops
from megapt.training.prepared import prepare
from tests.ranks import run_ranks
from tests.training.runs import ALONE, records_of, run_config, train

AXES = get_args(Axis)
COUNTED = [axis for axis in AXES if axis != "wall_clock"]


def ended(corpus: Path, output: Path, axis: str, amount: float, world: int = 1) -> RunConfig:
    config = run_config(
        corpus,
        output,
        objective={"name": "msc"},
        training={"budget": {"axis": axis, "amount": amount}, "validate_every": 0},
    )
    run_ranks(world, train, config)
    return config


@pytest.mark.parametrize("axis", COUNTED)
def test_a_run_ends_with_the_first_step_that_reaches_the_amount(
    trained: Callable[..., RunConfig], corpus_folder: Path, tmp_path: Path, axis: str
) -> None:
    spent = [record[axis] for record in records_of(trained("msc"), "train")]
    exactly = ended(corpus_folder, tmp_path / "exactly", axis, spent[2])
    assert [record[axis] for record in records_of(exactly, "train")] == spent[:3]
    more = ended(corpus_folder, tmp_path / "more", axis, spent[2] * (1 + 1e-6), world=2)
    assert [record[axis] for record in records_of(more, "train")] == spent[:4]


def test_a_run_ends_with_the_first_step_that_reaches_the_time(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = ended(corpus_folder, tmp_path / "run", "wall_clock", 0.2, world=2)
    seconds = [record["wall_clock"] for record in records_of(config, "train")]
    assert seconds[-1] >= 0.2
    assert all(earlier < 0.2 for earlier in seconds[:-1])
    assert all(before < after for before, after in pairwise(seconds))


def test_every_record_counts_the_windows_up_to_it(trained: Callable[..., RunConfig]) -> None:
    config = trained("msc")
    maker = prepare(config.model_copy(update={"output": "never"}), ALONE, Origins()).maker
    heads, vocabulary = maker.objective.heads, maker.objective.vocabulary.size
    total, flops = Counts(), 0.0
    for step, record in enumerate(records_of(config, "train")):
        counts = maker.batch(range(8 * step, 8 * step + 8)).counts
        flops += training_flops(config.model, heads, counts, vocabulary)
        total += counts
        assert record["raw_tokens"] == total.raw_tokens
        assert record["positions"] == total.positions
        assert record["targets"] == total.targets
        assert record["model_flops"] == pytest.approx(flops, rel=1e-12)


@pytest.mark.parametrize("axis", AXES)
def test_the_share_is_that_of_the_declared_axis(axis: str) -> None:
    spent = Spent(**{other: 1e9 for other in AXES if other != axis}, **{axis: 30.0})
    assert spent.share(BudgetConfig(axis=axis, amount=120.0)) == 0.25
    assert spent.share(BudgetConfig(axis=axis, amount=20.0)) == 1.0


def test_amounts_add_up_axis_by_axis() -> None:
    assert Spent(1, 2, 3, 4, 5).plus(Spent(10, 20, 30, 40, 50)) == Spent(11, 22, 33, 44, 55)
