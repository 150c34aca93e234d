"""The model writes at each validation, the same on any ranks, and training does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megapt.config import RunConfig
from megapt.evaluation import generate, load_run
from tests.objectives.builders import preset
from tests.ranks import run_ranks
from tests.training.runs import records_of, run_config, train, without_clock

SAMPLES = {"num_samples": 2, "max_new_tokens": 6}


def run_of(
    corpus: Path, folder: Path, world: int, stage: int, monitor: dict[str, Any], **sections: Any
) -> RunConfig:
    config = run_config(corpus, folder, parallel={"zero_stage": stage}, monitor=monitor, **sections)
    run_ranks(world, train, config)
    return config


def texts_of(config: RunConfig) -> list[list[str]]:
    return [record["samples"] for record in records_of(config, "valid")]


@pytest.fixture(scope="module")
def alone(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return run_of(corpus_folder, tmp_path_factory.mktemp("alone") / "run", 1, 0, SAMPLES)


def test_what_was_written_is_shown(alone: RunConfig) -> None:
    texts = texts_of(alone)
    assert len(texts) == 2
    for written in texts:
        assert len(written) == 2
        assert all(" ‖ " in text for text in written)
    prompts = [[text.split(" ‖ ")[0] for text in written] for written in texts]
    assert all(found == prompts[0] for found in prompts)
    assert texts[0] != texts[1], "it has learnt"
    board = EventAccumulator(str(Path(alone.output) / "tensorboard"), {"tensors": 0})
    board.Reload()
    assert len(board.Tensors("samples/1/text_summary")) == len(texts)


RENAMED = """
from dataclasses import replace
from megapt.data import HeadSpec
from megapt.objectives.arlm import Arlm

class Own(Arlm):
    name = "own"

    @property
    def heads(self):
        return (HeadSpec("written", "token"),)

    def examples(self, window, rng):
        return [
            replace(example, targets={"written": example.targets["tokens"]})
            for example in super().examples(window, rng)
        ]
"""


def test_an_objective_may_call_its_head_what_it_likes(
    corpus_folder: Path, tmp_path: Path, alone: RunConfig
) -> None:
    file = tmp_path / "own.py"
    file.write_text(RENAMED, encoding="utf-8")
    section = {"name": "own", "file": str(file)}
    config = run_of(corpus_folder, tmp_path / "run", 1, 0, SAMPLES, objective=section)
    assert texts_of(config) == texts_of(alone)
    runs = [load_run(folder) for folder in (config.output, alone.output)]
    prompt = runs[0].tokenizer.encode("The old ship")
    [mine, theirs] = [generate(run, [prompt], max_tokens=4)[0].tolist() for run in runs]
    assert mine == theirs


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_ranks_write_what_one_writes_and_learn_the_same(
    corpus_folder: Path, tmp_path: Path, alone: RunConfig, stage: int
) -> None:
    config = run_of(corpus_folder, tmp_path / "run", 2, stage, SAMPLES)
    assert texts_of(config) == texts_of(alone)
    silent = run_of(corpus_folder, tmp_path / "silent", 2, stage, {})
    records = without_clock(records_of(config))
    for record in records:
        record.pop("samples", None)
    assert records == without_clock(records_of(silent))


@pytest.mark.parametrize(("name", "able"), [("mgm", True), ("fim", True), ("mlm", False)])
def test_objectives_write_as_they_can(
    corpus_folder: Path, tmp_path: Path, name: str, able: bool
) -> None:
    objective = preset(name)
    budget = {"budget": {"amount": 400.0}}
    config = run_of(
        corpus_folder, tmp_path / "run", 1, 0, SAMPLES, objective=objective, training=budget
    )
    records = records_of(config, "valid")
    assert all(("samples" in record) == able for record in records)


def test_a_model_that_reads_rows_writes_the_same(
    corpus_folder: Path, tmp_path: Path, alone: RunConfig
) -> None:
    training = {"attention": "rows", "row_length": 64}
    config = run_of(corpus_folder, tmp_path / "run", 1, 0, SAMPLES, training=training)
    assert texts_of(config) == texts_of(alone)
