"""A small model under a real engine, trained a few steps on numbers instead of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megapt.checkpoint import Checkpoints, TrainerState
from megapt.config import CheckpointConfig, Origins, RunConfig
from megapt.data import LoaderState
from megapt.data.budget import Spent
from megapt.distributed.deepspeed_config import deepspeed_config
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.distributed.shards import WEIGHT, Shards
from megapt.optim import find_optimizer, make_optimizer

BATCH, WIDTH = 8, 6
RATE = 1e-2


class Model(nn.Module):
    """Odd sizes, a tied weight, a buffer, and parameters of every kind of group."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.words = nn.Embedding(11, WIDTH)
        self.hidden = nn.Linear(WIDTH, 7)
        self.norm = nn.LayerNorm(7)
        self.back = nn.Linear(7, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, 11)
        self.out.weight = self.words.weight
        self.register_buffer("scale", torch.tensor([0.5]))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of (rows,) ids and their labels."""
        hidden = self.norm(self.hidden(self.words(ids)))
        logits = self.out(self.back(torch.tanh(hidden) * self.scale.to(hidden.dtype)))
        return nn.functional.cross_entropy(logits.float(), labels)


def settings(stage: int, precision: str = "fp32", **optimizer: Any) -> RunConfig:
    """The configuration of an engine."""
    budget = {"axis": "raw_tokens", "amount": 1000.0}
    return RunConfig.model_validate(
        {
            "output": "none",
            "data": {"corpus": "none", "window": 16},
            "objective": {"name": "arlm"},
            "model": {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24},
            "parallel": {"zero_stage": stage},
            # A large epsilon: Adam divides by the gradient's size, and with a small one it would
            # turn rounding errors of gradients near zero into whole steps.
            "optimizer": {"lr": RATE, "eps": 1e-4, "weight_decay": 0.3, **optimizer},
            "training": {
                "budget": budget,
                "precision": precision,
                "global_batch_size": BATCH,
                "micro_batch_size": 1,
            },
        }
    )


def make_engine(ranks: Ranks, config: RunConfig) -> Engine:
    """An engine at its beginning."""
    model = Model()
    optimizer = make_optimizer(find_optimizer(config, Origins()), model, config, ranks)
    settings = deepspeed_config(config, ranks, Origins())
    return Engine(model, optimizer, config, settings, ranks)


def advance(engine: Engine, ranks: Ranks, first: int, last: int) -> list[float]:
    """Do the updates `first` to `last`, counted from 1, and return their losses."""
    losses = []
    for step in range(first, last + 1):
        generator = torch.Generator().manual_seed(step)
        ids, labels = torch.randint(0, 11, (2, BATCH), generator=generator)
        mine = range(ranks.rank, BATCH, ranks.world)
        total = 0.0
        for row in mine:
            loss = engine(ids[row, None], labels[row, None])
            engine.backward(loss / BATCH, last=row == mine[-1])
            total += float(loss)
        engine.step(RATE / step)
        losses.append(ranks.sum([total])[0] / BATCH)
    return losses


def state_of(step: int, ranks: Ranks, config: RunConfig) -> TrainerState:
    """What the trainer would save."""
    return TrainerState(
        step=step,
        spent=Spent(raw_tokens=step).as_dict(),
        ranks=ranks.world,
        zero_stage=config.parallel.zero_stage,
        precision=config.training.precision,
        data=LoaderState({}, windows=step * BATCH),
        validation=LoaderState({}),
    )


def checkpoints_of(folder: Path, ranks: Ranks, **options: Any) -> Checkpoints:
    """The checkpoints in a folder."""
    return Checkpoints(folder, CheckpointConfig(**options), settings(0).model, ranks)


def train(
    ranks: Ranks,
    folder: Path,
    config: RunConfig,
    steps: int,
    every: int,
    checkpoint: Mapping[str, Any] = {},
) -> list[float]:
    """Train to step `steps` from the newest checkpoint; return the losses by step."""
    checkpoints = checkpoints_of(folder, ranks, **checkpoint)
    saved = checkpoints.newest()
    engine = make_engine(ranks, config)
    done = 0
    if saved is not None:
        checkpoints.load(saved, engine)
        done = saved.step
    losses = []
    while done < steps:
        done += 1
        losses += advance(engine, ranks, done, done)
        checkpoints.settle(not ranks.any(not checkpoints.poll()))
        if done % every == 0:
            checkpoints.save(engine, state_of(done, ranks, config))
    checkpoints.finish()
    engine.close()
    return losses


def states_of(path: Path) -> dict[tuple[str, str], Tensor]:
    """(name of a parameter, key) -> its values in a checkpoint, whole."""
    shards = Shards(path)
    found = {}
    for name in shards.shapes:
        for key in (WEIGHT, *shards.keys(name)):
            found[name, key] = shards.whole(name, key)
        for key, value in shards.numbers(name).items():
            found[name, key] = torch.as_tensor(float(value))
    return found
