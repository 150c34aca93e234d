"""Runs whose batches grow and whose texts lengthen: the same run however it is spread or broken."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from megapt.config import Origins, RunConfig
from megapt.training.checks import choose_rows
from megapt.training.prepared import prepare
from tests.objectives.builders import build
from tests.ranks import run_ranks
from tests.training.runs import (
    ALONE,
    assert_follows,
    last_weights,
    records_of,
    run_config,
    train,
    train_with_signal,
    without_clock,
)
from tests.training.test_wrong_input import refusal

SIZES = [4, 4, 8, 8, 16, 16, 16]
LENGTHS = [16, 16, 16, 24, None, None, None]


def ramped(corpus: Path, output: Path, **training: Any) -> RunConfig:
    """72 windows of 48 tokens; the masked share goes by the step, too."""
    return run_config(
        corpus,
        output,
        objective={"name": "mlm", "final_mask_rate": 0.4},
        model={"dropout": 0.1},
        schedule={
            "batch_size_rampup": [
                {"until": 0.1, "global_batch_size": 4},
                {"until": 0.3, "global_batch_size": 8},
            ],
            "window_rampup": [{"until": 0.2, "length": 16}, {"until": 0.3, "length": 24}],
        },
        checkpoint={"every": 2},
        training={
            "budget": {"amount": 72 * 48.0},
            "global_batch_size": 16,
            "micro_batch_size": 2,
            "validate_every": 4,
            **training,
        },
    )


@pytest.fixture(scope="module")
def whole(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A ramped run on one rank, never stopped."""
    config = ramped(corpus_folder, tmp_path_factory.mktemp("whole") / "run")
    run_ranks(1, train, config)
    return config


def test_a_run_consumes_what_its_stages_say(whole: RunConfig) -> None:
    records = records_of(whole, "train")
    tokens = [0.0, *(record["raw_tokens"] for record in records)]
    assert [(after - before) / 48 for before, after in pairwise(tokens)] == SIZES
    assert len(records) == whole.planned_steps == len(SIZES)


def test_the_objective_gets_texts_of_the_length_of_the_step(
    whole: RunConfig, tmp_path: Path
) -> None:
    prepared = prepare(
        whole.model_copy(update={"output": str(tmp_path / "never")}), ALONE, Origins()
    )
    first = 0
    for step, (size, length) in enumerate(zip(SIZES, LENGTHS, strict=True)):
        windows = prepared.maker.windows(range(first, first + size))
        assert {window.step for window in windows} == {step}
        longest = max(len(e) for window in windows for e in prepared.maker.examples(window))
        assert longest <= (length or 48) + 2
        assert longest > {16: 0, 24: 18, None: 26}[length]
        first += size


def test_any_split_gives_the_same_updates(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    # Dropout belongs to the micro-batch, so that it stays.
    config = ramped(corpus_folder, tmp_path / "run")
    run_ranks(2, train, config)
    assert_follows(records_of(config), records_of(whole))


def test_a_run_stopped_in_each_stage_goes_on_as_if_it_had_not_been(
    whole: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    config = ramped(corpus_folder, tmp_path / "run")
    for step in (1, 3, 4, 5):
        assert run_ranks(1, train_with_signal, config, signal.SIGTERM, step) == [None]
    run_ranks(1, train, config)
    assert without_clock(records_of(config)) == without_clock(records_of(whole))
    mine, theirs = last_weights(config), last_weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_rows_suffice_for_the_shortest_texts(corpus_folder: Path, tmp_path: Path) -> None:
    """Each part has its special tokens, but a micro-batch has always as many rows."""
    config = ramped(corpus_folder, tmp_path / "run", micro_batch_size=4, row_length=51)
    rows = choose_rows(config, build("mlm", window=48), Origins())
    assert rows is not None
    assert rows.count == 6, "4 windows in 3 parts of 19 positions take 5 rows, and one more"
    maker = prepare(config, ALONE, Origins()).maker
    batches = [maker.batch(range(first, first + 4)) for first in range(0, sum(SIZES), 4)]
    assert {len(batch.tokens) for batch in batches} == {6 * 51}


@pytest.mark.parametrize("micro_batch_size", [8, 16])
def test_a_stage_that_does_not_divide_is_refused(
    corpus_folder: Path, tmp_path: Path, micro_batch_size: int
) -> None:
    config = ramped(corpus_folder, tmp_path / "run", micro_batch_size=micro_batch_size)
    message = refusal(config, Origins({"schedule.batch_size_rampup": "run.yaml:7"}))
    assert message.startswith(
        f"run.yaml:7: schedule.batch_size_rampup: 4 windows are not divisible by micro_batch_size "
        f"{micro_batch_size}"
    )
    assert not (tmp_path / "run").exists()
