"""Tiny models and the batches they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from megapt.config import LossConfig, ModelConfig
from megapt.data import Attention, Batch, Example, HeadSpec, Targets, collate, make_example
from megapt.data.packing import Rows
from megapt.model import PretrainingModel
from megapt.model.attention import BACKENDS

VOCABULARY, LENGTH = 50, 32
TOKENS = HeadSpec("tokens", "token")
CLASSES = HeadSpec("class", "sequence", classes=3)

MODERN: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 24,
    "init_std": 0.2,  # large, so that every part is seen in the output
}
VANILLA: dict[str, Any] = {
    **MODERN,
    "activation": "relu",
    "norm": "layernorm",
    "norm_position": "post",
    "positions": "sinusoidal",
    "bias": True,
}
STYLES = {"pre": MODERN, "post": VANILLA}


def make_model(
    config: ModelConfig,
    heads: Sequence[HeadSpec] = (TOKENS,),
    seed: int = 0,
    attention: str = "grouped",
    loss: LossConfig = LossConfig(),
) -> PretrainingModel:
    """A model in evaluation mode."""
    model = PretrainingModel(
        config,
        heads,
        vocabulary=VOCABULARY,
        max_positions=LENGTH,
        seed=seed,
        attention=BACKENDS[attention],
        loss=loss,
    )
    return model.eval()


def random_example(
    length: int,
    attention: Attention,
    seed: int = 0,
    *,
    prefix: int | None = None,
    targets: int = 0,
) -> Example:
    """An example of random tokens; the prefix is half of it unless given."""
    rng = np.random.default_rng([seed, length])
    cut = length // 2 if prefix is None else prefix
    positions = np.arange(length)
    if attention == "prefix":
        positions = np.concatenate([np.arange(cut), np.arange(length - cut)])
    places = np.sort(rng.permutation(length)[:targets])
    labels = rng.integers(1, VOCABULARY, targets)
    return make_example(
        rng.integers(1, VOCABULARY, length),
        attention,
        {"tokens": Targets(places, labels)} if targets else {},
        positions=positions,
        segments=(np.arange(length) >= cut).astype(np.int64),
        prefix=cut,
    )


def make_batch(
    examples: Sequence[Example],
    heads: Sequence[HeadSpec] = (TOKENS,),
    rows: Rows | None = None,
    pad: int = 0,
) -> Batch:
    packed = collate(
        examples,
        pad=pad,
        heads=[head.name for head in heads],
        token_heads=[head.name for head in heads if head.over_vocabulary],
        rows=rows,
    )
    return packed.widen()


def with_tokens(batch: Batch, place: int, token: int) -> Batch:
    """The batch with another token at `place`."""
    tokens = batch.tokens.clone()
    assert tokens[place] != token
    tokens[place] = token
    return replace(batch, tokens=tokens)


def states_of(model: PretrainingModel, batch: Batch) -> torch.Tensor:
    """Hidden states, [N, hidden], without a graph."""
    with torch.no_grad():
        states: torch.Tensor = model.trunk(batch)
    return states
