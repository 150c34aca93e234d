"""Tiny runs: their configuration, the functions that ranks run, and what they leave."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.data import Batch
from megapt.distributed.mesh import Mesh
from megapt.distributed.ranks import Ranks
from megapt.errors import MegaptError, RunInterrupted
from megapt.monitoring.metrics import EVENT, read_metrics, without_clock
from megapt.training.prepared import PreparedRun, prepare
from megapt.training.trainer import Trainer

Records = list[dict[str, Any]]

ALONE = Ranks(0, Mesh(), torch.device("cpu"))
"""The pytest process as the only rank, for what needs no engine."""

_USUAL: dict[str, Any] = {
    "seed": 3,
    "data": {"window": 48},
    "objective": {"name": "arlm"},
    "model": {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24},
    # A large epsilon: Adam divides by the gradient's size, and with a small one it would turn
    # rounding errors of gradients near zero into whole steps.
    "optimizer": {"lr": 1e-2, "eps": 1e-4},
    "schedule": {"name": "linear", "warmup_ratio": 0.2},
    "training": {
        "budget": {"axis": "raw_tokens", "amount": 2000.0},
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "validate_every": 3,
        "validation_windows": 10,
        "log_every": 1,
    },
    "checkpoint": {"every": 0},
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both else value
    return result


def run_config(corpus: Path, output: Path, **sections: Any) -> RunConfig:
    """The configuration of a run of some seven steps; `sections` change parts of it."""
    place = {"output": str(output), "data": {"corpus": str(corpus)}}
    return RunConfig.model_validate(merged(merged(_USUAL, place), sections))


def train(ranks: Ranks, config: RunConfig) -> dict[str, Any]:
    """Train on this rank and return the summary."""
    return Trainer(prepare(config, ranks, Origins())).train()


def train_to_refusal(ranks: Ranks, config: RunConfig) -> str:
    """Return the kind and the text of the error that training ends with, empty if none."""
    try:
        train(ranks, config)
    except MegaptError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def before_step(run: PreparedRun, step: int, action: Callable[[], None]) -> None:
    """Call `action` when the run asks for the first batch of update `step`, counted from 1."""
    first = (step - 1) * run.parts.config.training.global_batch_size
    batch = run.maker.batch

    def watched(numbers: Sequence[int | None]) -> Batch:
        if numbers[0] is not None and numbers[0] >= first:
            run.maker.batch = batch  # type: ignore[method-assign]
            action()
        return batch(numbers)

    run.maker.batch = watched  # type: ignore[method-assign]


def within_step(trainer: Trainer, step: int, action: Callable[[], None]) -> None:
    """Call `action` when the trainer has all data of update `step`, counted from 1."""
    iterate = trainer.loader.iterate

    def watched(*args: Any) -> Iterator[tuple[int, list[Batch]]]:
        with closing(iterate(*args)) as batches:
            for number, mine in batches:
                if number == step - 1:
                    action()
                yield number, mine

    trainer.loader.iterate = watched  # type: ignore[method-assign, assignment]


def train_with_signal(
    ranks: Ranks, config: RunConfig, number: signal.Signals, step: int
) -> dict[str, Any] | None:
    """Train; the last rank sends itself the signal in update `step`. None if that ends the run."""
    trainer = Trainer(prepare(config, ranks, Origins()))
    if ranks.rank == ranks.world - 1:
        within_step(trainer, step, lambda: os.kill(os.getpid(), number))
    try:
        return trainer.train()
    except RunInterrupted:
        return None


def records_of(config: RunConfig, split: str | None = None) -> Records:
    """The records in a run's metrics file, of one split, or of training and validation."""
    records = read_metrics(RunFolder(config.output).metrics_file)
    splits = ("train", "valid") if split is None else (split,)
    return [record for record in records if record["split"] in splits]


def events_of(config: RunConfig, kind: str) -> Records:
    """The events of one kind in a run's metrics file."""
    return [record for record in records_of(config, EVENT) if record["kind"] == kind]


def last_weights(config: RunConfig) -> dict[str, Tensor]:
    """The plain weights in the newest checkpoint."""
    *_, newest = sorted(RunFolder(config.output).checkpoints.glob("step-*"))
    weights: dict[str, Tensor] = load_file(newest / "model.safetensors")
    return weights


def assert_follows(found: Records, expected: Records, rel: float = 1e-5) -> None:
    """Both are the records of the same training, but for the clock, rounding and packing."""
    assert len(found) == len(expected) > 6
    for mine, theirs in zip(without_clock(found), without_clock(expected), strict=True):
        for record in (mine, theirs):
            record.pop("packing_efficiency", None)  # is that of the micro-batches
        assert (mine.pop("split"), mine.pop("step")) == (theirs.pop("split"), theirs.pop("step"))
        assert mine == pytest.approx(theirs, rel=rel, abs=1e-6)


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
