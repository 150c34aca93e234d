"""A tiny model trained through the engine alone: no corpus, no trainer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from megapt.config import Origins, RunConfig
from megapt.distributed.deepspeed_config import deepspeed_config
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.optim import find_optimizer, make_optimizer
from tests.training.runs import run_config

Array = NDArray[np.float32]
Weights = dict[str, Array]

ROWS = 8
"""Examples of every update."""
_WORDS, _WIDTH, _LENGTH = 11, 8, 4


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feedforward_norm = nn.LayerNorm(_WIDTH)
        self.up = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.down = nn.Linear(2 * _WIDTH, _WIDTH, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        hidden: Tensor = self.down(torch.tanh(self.up(self.feedforward_norm(states))))
        return states + hidden


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, _WIDTH)
        self.positions = nn.Embedding(_LENGTH, _WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.words(tokens) + self.positions.weight
        return states


class _Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.final_norm = nn.LayerNorm(_WIDTH)


class TinyModel(nn.Module):
    """Two blocks between two embeddings and a head, with the names of the real model's parts."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.trunk = _Trunk()
            self.heads = nn.ModuleDict({"tokens": nn.Linear(_WIDTH, _WORDS)})

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return the summed cross-entropy over `ROWS`, so that micro-batches add up."""
        states = self.trunk.embeddings(tokens)
        for block in self.trunk.blocks:
            states = block(states)
        logits = self.heads["tokens"](self.trunk.final_norm(states)).float().flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum")
        return loss / (ROWS * _LENGTH)


def examples(step: int) -> tuple[Tensor, Tensor]:
    """The tokens and labels of an update, both [ROWS, length]."""
    generator = torch.Generator().manual_seed(step)
    both = torch.randint(0, _WORDS, (2, ROWS, _LENGTH), generator=generator)
    return both[0], both[1]


@dataclass(frozen=True)
class Step:
    """One update of a plan."""

    text: int
    """Which examples."""
    micro_batches: int = 1
    """Of each rank."""
    skip: bool = False
    poison: float | None = None
    """What the loss of the last rank's first micro-batch is multiplied with."""


@dataclass
class Trained:
    """What one rank saw."""

    norms: list[float]
    applied: list[bool]
    weights: list[Weights]
    """After every update, whole and in float32."""
    states: list[list[Array]]
    """All tensors of this rank's optimizer after every update, copied."""


def tiny_config(**sections: Any) -> RunConfig:
    """A run whose files are never looked at."""
    base = {"optimizer": {"weight_decay": 0.1}, "training": {"global_batch_size": ROWS}}
    merged = {name: {**base.get(name, {}), **part} for name, part in {**base, **sections}.items()}
    return run_config(Path("nowhere"), Path("nowhere"), **merged)


def as_array(tensor: Tensor) -> Array:
    """A copy that outlives the rank, unlike a tensor, which it would share."""
    return tensor.detach().cpu().numpy().copy()


def tiny_engine(config: RunConfig, ranks: Ranks) -> Engine:
    """The engine of a tiny model at its beginning."""
    model = TinyModel()
    optimizer = make_optimizer(find_optimizer(config, Origins()), model, config, ranks)
    settings = deepspeed_config(config, ranks, Origins())
    return Engine(model, optimizer, config, settings, ranks)


def full_weights(engine: Engine) -> Weights:
    """All parameters in float32; all ranks call."""
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in engine._engine.module.named_parameters():
        whole = safe_get_full_fp32_param(parameter)
        weights[name] = as_array((parameter if whole is None else whole).detach().float())
    return weights


def optimizer_states(engine: Engine) -> list[Array]:
    """Copies of what this rank's optimizer keeps, of each parameter in order."""
    optimizer = getattr(engine._engine.optimizer, "optimizer", engine._engine.optimizer)
    return [
        as_array(value)
        for state in optimizer.state.values()
        for _, value in sorted(state.items())
        if isinstance(value, Tensor)
    ]


def one_step(engine: Engine, ranks: Ranks, step: Step, rate: float) -> tuple[float, bool]:
    """Do an update; return its norm, and whether it was applied."""
    tokens, labels = examples(step.text)
    if ranks.sequence_world > 1:  # Each answers for some of the positions.
        mine = torch.arange(_LENGTH) % ranks.sequence_world == ranks.sequence_rank
        labels = torch.where(mine, labels, -100)
    share = slice(ranks.data_rank, None, ranks.data_world)
    parts = zip(
        tokens[share].chunk(step.micro_batches),
        labels[share].chunk(step.micro_batches),
        strict=True,
    )
    for i, (some, asked) in enumerate(parts):
        loss = engine(some, asked)
        if step.poison is not None and i == 0 and ranks.rank == ranks.world - 1:
            loss = loss * step.poison
        engine.backward(loss, last=i == step.micro_batches - 1)
    update = engine.step(rate, skip=step.skip)
    if update.applied:
        engine.update_average()
    return update.norm, update.applied


def train_tiny(
    ranks: Ranks, config: RunConfig, plan: Sequence[Step], rate: float = 0.05
) -> Trained:
    """Do the updates of a plan."""
    ranks = ranks.with_sequence_parallel(config.parallel.sequence_parallel_size)
    trained = Trained([], [], [], [])
    with closing(tiny_engine(config, ranks)) as engine:
        for step in plan:
            norm, applied = one_step(engine, ranks, step, rate)
            trained.norms.append(norm)
            trained.applied.append(applied)
            trained.weights.append(full_weights(engine))
            trained.states.append(optimizer_states(engine))
    return trained


def far_apart(found: Weights, expected: Weights) -> float:
    """The largest difference of any weight."""
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)
