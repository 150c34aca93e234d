"""What a run folder holds, and that a finished run is left alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megapt.checkpoint import run_folder
from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import steps_saved
from megapt.config import Origins, RunConfig
from megapt.data import Corpus, PackedBatch
from megapt.distributed.ranks import Ranks
from megapt.monitoring.metrics import read_metrics
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer
from tests.ranks import run_ranks
from tests.training.runs import ALONE, records_of, run_config, train, tree

NUMBERS = {
    "loss",
    "loss/tokens",
    "loss/class",
    "accuracy/tokens",
    "accuracy/class",
    "learning_rate",
    "gradient_norm",
    "raw_tokens",
    "positions",
    "targets",
    "model_flops",
    "wall_clock",
    "epoch",
    "skipped_shards",
    "packing_efficiency",
    "skipped_updates",
    "rollbacks",
}


@pytest.fixture(scope="module")
def run(trained: Callable[..., RunConfig]) -> RunConfig:
    return trained("msc")


def test_a_run_folder_holds_what_the_run_was(run: RunConfig, corpus_folder: Path) -> None:
    folder = RunFolder(run.output)
    assert folder.load_config() == run
    assert yaml.safe_load(folder.config_file.read_text()) == run.model_dump()
    environment = json.loads((folder.folder / "environment.json").read_text())
    assert environment["torch"] == version("torch")
    assert environment["deepspeed"] == version("deepspeed")
    assert environment["ranks"] == 1
    manifest = Corpus(corpus_folder).manifest
    assert json.loads(folder.corpus_file.read_text())["fingerprint"] == manifest.fingerprint
    assert (folder.folder / "tokenizer.model").read_bytes() == (
        corpus_folder / "tokenizer.model"
    ).read_bytes()
    assert folder.finished
    assert not [name for name in tree(folder.folder) if "partial" in name]


def test_the_summary_tells_where_the_run_ended(run: RunConfig) -> None:
    summary = RunFolder(run.output).summary()
    *_, last = records_of(run, "train")
    assert summary["steps"] == last["step"]
    assert summary["spent"] == {axis: last[axis] for axis in summary["spent"]}
    assert len(summary["spent"]) == 5
    validation = records_of(run, "valid")[-1]
    assert validation["step"] == last["step"]
    assert summary["validation"] == {name: validation[name] for name in summary["validation"]}
    assert summary["tokens_per_second"] == last["raw_tokens"] / last["wall_clock"]


def test_records_hold_every_number_of_every_step(run: RunConfig) -> None:
    train_records, valid_records = records_of(run, "train"), records_of(run, "valid")
    steps = len(train_records)
    assert [record["step"] for record in train_records] == list(range(1, steps + 1))
    due = [step for step in range(1, steps) if step % 3 == 0]
    assert [record["step"] for record in valid_records] == [*due, steps]
    for record in train_records:
        assert record.keys() == NUMBERS | {"split", "step", "clock"}
    for record in valid_records:
        assert {"loss", "loss/tokens", "accuracy/class"} < record.keys()


def train_without_targets_in_step_2(ranks: Ranks, config: RunConfig) -> None:
    trainer = Trainer(prepare(config, ranks, Origins()))
    batch = trainer.prepared.maker.batch

    def watched(numbers: Sequence[int]) -> PackedBatch:
        packed = batch(numbers)
        if not 8 <= min(numbers) < 16:
            return packed
        none = {
            head: replace(asked, places=asked.places[:0], labels=asked.labels[:0], size=0.0)
            for head, asked in packed.targets.items()
        }
        return replace(packed, targets=none)

    trainer.prepared.maker.batch = watched  # type: ignore[method-assign]
    trainer.train()


def test_a_step_with_nothing_to_predict_has_no_losses(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run", objective={"name": "msc"})
    run_ranks(1, train_without_targets_in_step_2, config)
    first, second, *_ = records_of(config, "train")
    assert first.keys() == NUMBERS | {"split", "step", "clock"}
    scores = {name for name in NUMBERS if name.startswith(("loss", "accuracy"))}
    assert second.keys() == first.keys() - scores


def test_tensorboard_shows_the_same_numbers(run: RunConfig) -> None:
    board = EventAccumulator(str(Path(run.output) / "tensorboard"))
    board.Reload()
    assert {f"train/{name}" for name in NUMBERS} <= set(board.Tags()["scalars"])
    for split in ("train", "valid"):
        shown = [(event.step, event.value) for event in board.Scalars(f"{split}/loss")]
        written = [(record["step"], record["loss"]) for record in records_of(run, split)]
        assert [step for step, _ in shown] == [step for step, _ in written]
        assert [loss for _, loss in shown] == pytest.approx([loss for _, loss in written])


def test_records_and_checkpoints_come_as_often_as_asked(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        training={"log_every": 3, "validate_every": 0},
        checkpoint={"every": 2, "keep_last": 3},
    )
    [summary] = run_ranks(1, train, config)
    last = summary["steps"]
    logged = [record["step"] for record in records_of(config, "train")]
    assert logged == [*range(3, last, 3), last]
    assert [record["step"] for record in records_of(config, "valid")] == [last]
    kept = steps_saved(RunFolder(config.output).checkpoints)
    assert kept == [*range(2, last, 2), last][-3:]


def test_a_finished_run_is_left_alone(run: RunConfig) -> None:
    before = tree(Path(run.output))
    [summary] = run_ranks(1, train, run)
    assert summary == RunFolder(run.output).summary()
    assert tree(Path(run.output)) == before


def test_a_finished_run_of_one_rank_is_finished_for_two(run: RunConfig) -> None:
    before = tree(Path(run.output))
    run_ranks(2, train, run)
    assert tree(Path(run.output)) == before


def test_looking_at_a_run_writes_nothing(corpus_folder: Path, tmp_path: Path) -> None:
    prepare(run_config(corpus_folder, tmp_path / "run"), ALONE, Origins())
    assert not (tmp_path / "run").exists()


def train_out_of_step(ranks: Ranks, config: RunConfig) -> dict[str, Any]:
    """Train; the first rank is slow to write the folder, the second slow to look at it."""
    if ranks.main:
        write = run_folder.write_atomically
        run_folder.write_atomically = lambda *args: (time.sleep(0.6), write(*args))
    else:
        check = RunFolder.check
        RunFolder.check = lambda *args: (time.sleep(0.3), check(*args))  # type: ignore[method-assign]
    return train(ranks, config)


def test_a_slow_rank_does_not_take_the_new_folder_for_somebody_else_s(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(corpus_folder, tmp_path / "run", training={"budget": {"amount": 1.0}})
    run_ranks(2, train_out_of_step, config)


def test_a_metrics_file_is_read_up_to_where_a_crash_cut_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(file) == [{"step": 1}, {"step": 2}]
