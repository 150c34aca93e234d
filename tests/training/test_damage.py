"""A shard that cannot be read in the middle of a run ends it on all ranks, or is left out."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import steps_saved
from megapt.config import Origins, RunConfig
from megapt.data import Corpus, PackedBatch
from megapt.distributed.ranks import Ranks
from megapt.errors import DamagedError, Exit
from megapt.exits import leave, run_and_report
from megapt.training import launch
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer
from tests.corpora import build_texts
from tests.data.reading.server import Fault, FaultyServer, serve
from tests.patience import patience
from tests.ranks import end_ranks, run_ranks
from tests.training.damage import copy_of, flip, late_shard, run_in_turn
from tests.training.runs import (
    assert_follows,
    before_step,
    records_of,
    run_config,
    train,
    train_to_refusal,
    train_with_signal,
)

SKIP = {"reading": {"on_damage": "skip"}}


def ended_with(ranks: Ranks, file: Path) -> int:
    """Train as the command does on this rank; return its exit code."""
    return run_and_report(lambda: launch.train(str(file), []))


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 1)])
def test_a_damaged_shard_ends_the_run_on_every_rank_before_a_step_uses_it(
    corpus_folder: Path, tmp_path: Path, world: int, workers: int
) -> None:
    """Only one of two ranks finds it; the other waits for it in a collective."""
    corpus = copy_of(corpus_folder, tmp_path)
    shard, step = late_shard(corpus)
    flip(shard)
    data = {"num_workers": workers, "reading": {"verify": "use"}}
    config = run_in_turn(corpus, tmp_path / "run", data=data)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    outcomes, printed = end_ranks(world, ended_with, file)
    assert [(outcome.value, outcome.failure) for outcome in outcomes] == [
        (Exit.DAMAGED, "")
    ] * world
    [line] = [line for line in printed.splitlines() if not line.startswith("run: ")]
    assert line.startswith("megapt: error: ")
    for part in (str(shard), "sha256", "data.reading.on_damage"):
        assert part in line
    assert [record["step"] for record in records_of(config)] == list(range(1, step))
    assert steps_saved(RunFolder(config.output).checkpoints) == [step - 1]
    flip(shard)
    outcomes, _ = end_ranks(world, ended_with, file)
    assert [(outcome.value, outcome.failure) for outcome in outcomes] == [(0, "")] * world
    undisturbed = run_in_turn(corpus, tmp_path / "undisturbed", data=data)
    run_ranks(1, train, undisturbed)
    assert_same_data(undisturbed, config)


class Outage(list[str]):
    """What a server was asked for; it goes away once a certain file is among it."""

    def __init__(self, server: FaultyServer, file: str) -> None:
        self._server, self._file = server, file

    def append(self, name: str) -> None:
        super().append(name)
        if name == self._file:
            for file in self._server.folder.iterdir():
                self._server.always[file.name] = Fault("cut", -1)


@pytest.mark.parametrize(("on_damage", "workers"), [("stop", 0), ("skip", 1)])
def test_a_store_that_goes_away_ends_the_job_saved_and_to_be_started_again(
    corpus_folder: Path, tmp_path: Path, on_damage: str, workers: int
) -> None:
    shard, step = late_shard(corpus_folder)
    with serve(corpus_folder) as server:
        server.requests = Outage(server, shard.name)
        reading = {"cache_dir": str(tmp_path / "cache"), "max_retries": 1, "backoff": 0.01}
        data = {"corpus": server.url, "num_workers": workers}
        data["reading"] = {**reading, "on_damage": on_damage}
        config = run_in_turn(corpus_folder, tmp_path / "run", data=data)
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
        outcomes, printed = end_ranks(2, ended_with, file)
        ended = [(outcome.value, outcome.failure) for outcome in outcomes]
        assert ended == [(Exit.RESTART, "")] * 2, printed
        [line] = [line for line in printed.splitlines() if line.startswith("megapt: error: ")]
        assert f"{server.url}/{shard.name}: cannot be read" in line
        assert steps_saved(RunFolder(config.output).checkpoints) == [step - 1]
        outcomes, printed = end_ranks(2, ended_with, file)
        assert [outcome.value for outcome in outcomes] == [Exit.RESTART] * 2, "away at the start"
        assert f"{server.url}/manifest.json: cannot be read" in printed
        server.requests = []
        server.always.clear()
        outcomes, _ = end_ranks(2, ended_with, file)
        assert [(outcome.value, outcome.failure) for outcome in outcomes] == [(0, "")] * 2
    undisturbed = run_in_turn(corpus_folder, tmp_path / "undisturbed")
    run_ranks(1, train, undisturbed)
    assert_same_data(undisturbed, config)


def assert_same_data(expected: RunConfig, found: RunConfig) -> None:
    """Both runs have read the same windows in the same order."""
    states = [RunFolder(config.output).summary()["data"] for config in (expected, found)]
    assert states[0] == states[1]


def fail_alone(ranks: Ranks, config: RunConfig, step: int) -> int:
    """Train; the last rank meets an error of its own in update `step`."""

    def fail() -> None:
        raise OSError(28, "No space left on device", "cache")

    def job() -> None:
        trainer = Trainer(prepare(config, ranks, Origins()))
        if ranks.rank == ranks.world - 1:
            before_step(trainer.prepared, step, fail)
        trainer.train()

    code = run_and_report(job)
    leave(code)
    return code


def test_no_rank_outlives_another_that_failed(corpus_folder: Path, tmp_path: Path) -> None:
    """The harness gives the others a second; a launcher would end them."""
    config = run_in_turn(corpus_folder, tmp_path / "run")
    outcomes, printed = end_ranks(2, fail_alone, config, 3)
    assert "megapt: error: rank 1: cache: No space left on device" in printed
    assert outcomes[1].failure == "rank 1 died with exit code 1"
    assert "still ran" not in outcomes[0].failure


def fail_beside_a_stall(ranks: Ranks, config: RunConfig) -> str:
    """Train with two loader processes: one meets an error, the other waits for a dead server."""
    trainer = Trainer(prepare(config, ranks, Origins()))
    batch = trainer.prepared.maker.batch

    def watched(numbers: Sequence[int]) -> PackedBatch:
        if min(numbers) >= 24:
            time.sleep(600)
        if min(numbers) >= 16:
            raise DamagedError("a shard is damaged")
        return batch(numbers)

    trainer.prepared.maker.batch = watched  # type: ignore[method-assign]
    with pytest.raises(DamagedError) as error:
        trainer.train()
    return str(error.value)


def test_a_stalled_loader_process_does_not_keep_a_failed_job_from_ending(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_in_turn(corpus_folder, tmp_path / "run", data={"num_workers": 2})
    began = time.monotonic()
    assert run_ranks(1, fail_beside_a_stall, config) == ["a shard is damaged"]
    assert time.monotonic() - began < patience(10)


@pytest.fixture(scope="module")
def skipped(
    corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, Path, int]:
    """A run that left a shard out, the shard, and the step that would have needed it."""
    folder = tmp_path_factory.mktemp("skipped")
    corpus = copy_of(corpus_folder, folder)
    shard, step = late_shard(corpus)
    flip(shard)
    config = run_in_turn(corpus, folder / "run", data=SKIP)
    run_ranks(1, train, config)
    return config, shard, step


def states_of(config: RunConfig) -> dict[str, Any]:
    """The state in the newest checkpoint."""
    *_, newest = sorted(RunFolder(config.output).checkpoints.glob("step-*"))
    state: dict[str, Any] = json.loads((newest / "trainer.json").read_text())
    return state


def test_a_shard_that_is_left_out_is_counted_and_named(
    skipped: tuple[RunConfig, Path, int],
) -> None:
    config, shard, step = skipped
    records = records_of(config, "train")
    assert [record["skipped_shards"] for record in records] == [
        int(record["step"] >= step) for record in records
    ]
    [(name, shards)] = states_of(config)["data"]["skipped"].items()
    assert name == "corpus"
    [why] = shards.values()
    assert str(shard) in why
    spent = [record["raw_tokens"] for record in records]
    assert min(after - before for before, after in pairwise(spent)) < 8 * config.data.window


@pytest.mark.parametrize("world", [1, 2])
def test_a_resumed_run_leaves_out_the_same_though_it_was_repaired(
    skipped: tuple[RunConfig, Path, int], tmp_path: Path, world: int
) -> None:
    whole, shard, step = skipped
    corpus = copy_of(shard.parent, tmp_path)
    config = run_in_turn(corpus, tmp_path / "run", data=SKIP)
    stopped = run_ranks(world, train_with_signal, config, signal.SIGTERM, step + 1)
    assert stopped == [None] * world
    flip(corpus / shard.name)
    run_ranks(world, train, config)
    assert_follows(records_of(config), records_of(whole))
    mine, theirs = (json.dumps(states_of(of)["data"]) for of in (config, whole))
    assert mine.replace(str(corpus), str(shard.parent)) == theirs


def test_a_held_out_shard_that_is_left_out_is_counted_too(
    corpus_folder: Path, tmp_path: Path
) -> None:
    """Scores of fewer windows are not those of all."""
    source = corpus_folder.with_name("documents.jsonl")
    options = {"label_field": "topic", "valid_fraction": 0.4, "shard_tokens": 1200}
    corpus = build_texts(source, corpus_folder, tmp_path / "corpus", block_tokens=600, **options)
    flip(corpus / Corpus(corpus).validation.info.shards[1].file)
    every = {"validation_windows": 1000, "budget": {"amount": 800.0}}
    config = run_config(corpus, tmp_path / "run", data=SKIP, training=every)
    run_ranks(2, train, config)
    assert [record["skipped_shards"] for record in records_of(config, "valid")] == [1]
    state = states_of(config)
    assert list(state["validation"]["skipped"]["corpus"]) == ["1"]
    assert state["data"]["skipped"] == {}
    strict = {"reading": {"verify": "use"}}
    refused = run_config(corpus, tmp_path / "strict", data=strict, training=every)
    first, second = run_ranks(2, train_to_refusal, refused)
    assert first == second
    assert first.startswith("DamagedFile: ")
    assert "valid-000001.tar: sha256 is " in first
