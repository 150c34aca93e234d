"""Norms by group are those of the whole model, however it is sharded."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch

from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from megapt.monitoring.groups import GroupNorms, group_of
from tests.distributed.engines import (
    TinyModel,
    Weights,
    examples,
    full_weights,
    tiny_config,
    tiny_engine,
)
from tests.ranks import run_ranks

GROUPS = ["embeddings", "blocks.0", "blocks.1", "final_norm", "heads.tokens"]
STEPS, PARTS, RATE = 3, 2, 0.05

JOBS = [
    (1, 0, "fp32", "none"),
    (1, 2, "bf16", "none"),
    *((2, stage, "fp32", "none") for stage in range(4)),
    *((2, stage, "bf16", "none") for stage in (1, 2, 3)),
    *((2, stage, "fp32", "cpu") for stage in (1, 2, 3)),
]
"""(ranks, ZeRO stage, precision, where optimizer states are)"""


def watched(
    ranks: Ranks, config: RunConfig
) -> tuple[list[dict[str, float]], list[Weights], list[float]]:
    """Train; return what was measured of each update, all weights around it, and the norms."""
    measured, norms = [], []
    with closing(tiny_engine(config, ranks)) as engine:
        weights, groups = [full_weights(engine)], GroupNorms(ranks)
        for step in range(STEPS):
            tokens, labels = (
                rows[ranks.data_rank :: ranks.data_world].chunk(PARTS) for rows in examples(step)
            )
            for part in range(PARTS):
                loss = engine(tokens[part], labels[part])
                engine.backward(loss, last=part == PARTS - 1)
            groups.before(engine)
            norms.append(engine.step(RATE).norm)
            measured.append(groups.after(engine))
            weights.append(full_weights(engine))
    return measured, weights, norms


def by_group(weights: Weights) -> dict[str, float]:
    return {
        group: float(
            np.sqrt(
                sum(
                    (values**2).sum()
                    for name, values in weights.items()
                    if f".{group}." in f".{name}"
                )
            )
        )
        for group in GROUPS
    }


def gradients(weights: Weights, step: int) -> Weights:
    """What autograd says of the whole batch, at these weights."""
    model = TinyModel()
    model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    model(*examples(step)).backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("world", "stage", "precision", "offload"), JOBS)
def test_norms_are_those_of_the_whole_model(
    world: int, stage: int, precision: str, offload: str
) -> None:
    training: dict[str, Any] = {
        "precision": precision,
        "global_batch_size": 8,
        "micro_batch_size": 4 // world,
    }
    parallel = {"zero_stage": stage, "offload_optimizer": offload}
    config = tiny_config(parallel=parallel, training=training)
    measured, weights, norms = run_ranks(world, watched, config)[0]
    # bfloat16 gradients have eight bits.
    rel = 1e-4 if precision == "fp32" else 0.05
    for step in range(STEPS):
        before, after = weights[step], weights[step + 1]
        found = measured[step]
        assert list(found) == [
            f"{name}/{group}"
            for group in GROUPS
            for name in ("gradient_norm", "weight_norm", "update_ratio")
        ]
        expected = by_group(gradients(before, step))
        updates = by_group({name: after[name] - before[name] for name in before})
        for group, size in by_group(before).items():
            assert found[f"gradient_norm/{group}"] == pytest.approx(expected[group], rel=rel)
            assert found[f"weight_norm/{group}"] == pytest.approx(size, rel=1e-5)
            ratio = updates[group] / size
            assert ratio > 0
            assert found[f"update_ratio/{group}"] == pytest.approx(ratio, rel=1e-3)
        total = np.sqrt(sum(found[f"gradient_norm/{group}"] ** 2 for group in GROUPS))
        assert total == pytest.approx(norms[step], rel=1e-4)


def names_of_whole_weights(ranks: Ranks, config: RunConfig) -> list[tuple[str, bool]]:
    with closing(tiny_engine(config, ranks)) as engine:
        expected = full_weights(engine)
        return [
            (name, np.array_equal(weights.numpy(), expected[name]))
            for name, weights in engine.full_parameters()
        ]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_weights_come_whole_one_by_one(stage: int) -> None:
    config = tiny_config(parallel={"zero_stage": stage}, training={"micro_batch_size": 4})
    names = [name for name, _ in TinyModel().named_parameters()]
    for found in run_ranks(2, names_of_whole_weights, config):
        assert found == [(name, True) for name in names]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("trunk.embeddings.words.weight", "embeddings"),
        ("trunk.blocks.11.attention.qkv.weight", "blocks.11"),
        ("trunk.blocks.1._orig_mod.feedforward.up.weight", "blocks.1"),
        ("trunk.final_norm.weight", "final_norm"),
        ("heads.class.dense.bias", "heads.class"),
        ("generators.generator.blocks.0.attention.qkv.weight", "generators.generator.blocks.0"),
        ("generators.generator.head.transform.norm.weight", "generators.generator.head"),
    ],
)
def test_groups_of_parameters(name: str, group: str) -> None:
    assert group_of(name) == group
