"""Lion, Muon and Adafactor against their rules, and sharded against whole."""

from __future__ import annotations

import math
from contextlib import closing
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from megapt.config import ModelConfig, OptimizerConfig, Origins, RunConfig
from megapt.data import HeadSpec
from megapt.distributed.deepspeed_config import zero_stage
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.model import PretrainingModel
from megapt.optim import check_optimizer, find_optimizer
from megapt.optim import muon as rules
from megapt.optim.parameter_groups import parameter_groups, rate_factors
from tests.distributed.engines import (
    Step,
    TinyModel,
    Trained,
    as_array,
    examples,
    far_apart,
    full_weights,
    one_step,
    tiny_config,
    tiny_engine,
    train_tiny,
)
from tests.ranks import run_ranks

PLAN = [Step(0), Step(1, 2), Step(2)]
RATE = 0.05


def with_optimizer(name: str, stage: int = 0, precision: str = "fp32", **keys: float) -> RunConfig:
    return tiny_config(
        optimizer={"name": name, "max_grad_norm": 0.0, "eps": 1e-4, **keys},
        parallel={"zero_stage": stage},
        training={"precision": precision},
    )


@cache
def by_one_rank(name: str) -> Trained:
    [trained] = run_ranks(1, train_tiny, with_optimizer(name), PLAN)
    return trained


def gradients(model: TinyModel, step: int) -> dict[str, Tensor]:
    model.zero_grad()
    model(*examples(step)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def decay_of(name: str) -> float:
    return (
        0.1 if name.endswith(("words.weight", "up.weight", "down.weight", "tokens.weight")) else 0.0
    )


def test_lion_is_algorithm_2_of_the_paper() -> None:
    model, momenta = TinyModel(), {}
    for trained in by_one_rank("lion").weights:
        step = len(momenta.setdefault("", []))
        found = gradients(model, step)
        for name, weight in model.named_parameters():
            gradient, old = found[name], momenta.get(name, torch.zeros_like(weight))
            direction = torch.sign(0.9 * old + 0.1 * gradient)
            weight.data -= RATE * (direction + decay_of(name) * weight.data)
            momenta[name] = 0.95 * old + 0.05 * gradient
        momenta[""].append(step)
        mine = {name: as_array(weight) for name, weight in model.named_parameters()}
        # The sign of what is zero but for rounding is nobody's.
        wrong = sum((np.abs(trained[name] - mine[name]) > 1e-5).sum() for name in mine)
        assert wrong <= 1, step


@pytest.mark.parametrize(
    ("name", "stage", "world"),
    [
        ("lion", 1, 2),
        ("lion", 3, 2),
        ("muon", 0, 2),
        ("muon", 1, 1),
        ("muon", 1, 2),
        ("muon", 2, 2),
    ],
)
def test_sharded_updates_are_those_of_one_process(name: str, stage: int, world: int) -> None:
    expected = by_one_rank(name)
    for trained in run_ranks(world, train_tiny, with_optimizer(name, stage), PLAN):
        for mine, theirs in zip(trained.weights, expected.weights, strict=True):
            # Muon orthogonalizes in bfloat16, whose rounding a sum in another order may turn.
            assert far_apart(mine, theirs) < (2e-3 if name == "muon" else 1e-5)


def test_muon_is_torchs_for_matrices_in_blocks_and_adamw_elsewhere() -> None:
    """torch.optim.Muon with the same factor, on whole matrices in one process."""
    model = TinyModel()
    matrices = {n: p for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2}
    others = {n: p for n, p in model.named_parameters() if n not in matrices}
    assert len(matrices) == 4
    adamw = torch.optim.AdamW(
        [{"params": [p], "weight_decay": decay_of(n)} for n, p in others.items()],
        lr=RATE,
        betas=(0.9, 0.95),
        eps=1e-4,
    )
    muon = torch.optim.Muon(
        matrices.values(), lr=RATE, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step, trained in enumerate(by_one_rank("muon").weights):
        gradients(model, step)
        muon.step()
        adamw.step()
        mine = {name: as_array(weight) for name, weight in model.named_parameters()}
        assert far_apart(mine, trained) < 2e-3


def muon_updates(ranks: Ranks, config: RunConfig) -> tuple[list[list[float]], int]:
    """The singular values of the first update of each hidden matrix, in units of rate and scale;
    and how many matrices this rank orthogonalized."""
    calls = []
    true = rules.orthogonalized

    def counted(matrix: Tensor) -> Tensor:
        calls.append(matrix.shape)
        return true(matrix)

    rules.orthogonalized = counted
    with closing(tiny_engine(config, ranks)) as engine:
        before = full_weights(engine)
        one_step(engine, ranks, Step(0), RATE)
        after = full_weights(engine)
    values = []
    for name in before:
        if "blocks" in name and before[name].ndim == 2:
            update = (before[name] - after[name]) / RATE / 0.2 / math.sqrt(max(before[name].shape))
            values.append(np.linalg.svd(update, compute_uv=False).tolist())
    return values, len(calls)


@pytest.mark.parametrize(
    ("world", "stage", "precision"),
    [
        (1, 0, "fp32"),
        (2, 0, "fp32"),
        (1, 1, "fp32"),
        (2, 1, "fp32"),
        (2, 2, "fp32"),
        (2, 1, "bf16"),
    ],
)
def test_muon_orthogonalizes(world: int, stage: int, precision: str) -> None:
    config = with_optimizer("muon", stage, precision, weight_decay=0.0)
    found = run_ranks(world, muon_updates, config)
    for values, calls in found:
        assert len(values) == 4
        for of_matrix in values:
            # Descending. The least of all needs more than five iterations to come near 1.
            assert 0.5 < of_matrix[-2] <= of_matrix[0] < 1.5
            assert of_matrix[-1] > 0.2
        # Under ZeRO the ranks share the work; one matrix may lie across their border.
        assert calls == 4 if stage == 0 or world == 1 else 2 <= calls <= 3


def test_orthogonalising_keeps_the_singular_vectors() -> None:
    generator = torch.Generator().manual_seed(1)
    for shape in ((24, 8), (8, 24), (16, 16)):
        matrix = torch.randn(shape, generator=generator)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        found = rules.orthogonalized(matrix).float()
        assert found.shape == matrix.shape
        inner = torch.diagonal(u.T @ found @ v.T)
        assert 0.5 < inner.min() <= inner.max() < 1.5


def test_adafactor_is_torchs_on_whole_matrices() -> None:
    model = TinyModel()
    optimizer = torch.optim.Adafactor(
        [{"params": [p], "weight_decay": decay_of(n)} for n, p in model.named_parameters()], lr=RATE
    )
    for step, trained in enumerate(by_one_rank("adafactor").weights):
        gradients(model, step)
        optimizer.step()
        mine = {name: as_array(weight) for name, weight in model.named_parameters()}
        assert far_apart(mine, trained) < 1e-5


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (with_optimizer("muon", 3), "parallel.zero_stage 0, 1, 2 and "),
        (with_optimizer("adafactor", 1), "zero_stage 0 and training.precision fp32"),
        (
            with_optimizer("adafactor", 0, "bf16"),
            "zero_stage 0 and training.precision fp32",
        ),
    ],
)
def test_an_optimiser_of_whole_matrices_is_refused_where_they_are_cut(
    config: RunConfig, problem: str
) -> None:
    factory = find_optimizer(config, Origins())
    with pytest.raises(ConfigError, match=f"optimizer.name: .*{problem}"):
        check_optimizer(factory, config, zero_stage(config), Origins())


def test_rates_fall_from_block_to_block() -> None:
    names = ["trunk.embeddings.words.weight", "trunk.blocks.0.up.weight", "trunk.blocks.1.up.bias"]
    names += ["trunk.final_norm.weight", "heads.tokens.weight", "generators.x.blocks.0.up.weight"]
    factors = rate_factors(names, 0.5)
    assert list(factors.values()) == [0.125, 0.25, 0.5, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_the_first_update_of_each_layer_has_its_rate(stage: int) -> None:
    """Without epsilon and decay, AdamW's first update is the rate itself."""
    config = with_optimizer("adamw", stage, layer_decay=0.5, weight_decay=0.0)
    config = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"eps": 1e-12})}
    )
    before = {name: as_array(weight) for name, weight in TinyModel().named_parameters()}
    for trained in run_ranks(2, train_tiny, config, [Step(0)]):
        for name, factor in rate_factors(list(before), 0.5).items():
            largest = np.abs(trained.weights[0][name] - before[name]).max()
            assert largest == pytest.approx(factor * RATE, rel=1e-3), name


def test_what_decays_is_chosen() -> None:
    shape = ModelConfig(
        num_layers=1, hidden_size=8, num_heads=2, intermediate_size=16, norm="layernorm", bias=True
    )
    model = PretrainingModel(shape, (HeadSpec("tokens", "token"),), vocabulary=11, max_positions=32)
    names = {parameter: name for name, parameter in model.named_parameters()}

    def spared(*kinds: str) -> set[str]:
        config = OptimizerConfig(no_decay=list(kinds))
        return {
            names[parameter]
            for group in parameter_groups(model, config)
            for parameter in group["params"]
            if group["weight_decay"] == 0.0
        }

    assert spared() == set()
    assert spared("words") == {"trunk.embeddings.words.weight"}
    assert spared("positions") == {"trunk.embeddings.segments.weight"}
    norms, biases = spared("norms"), spared("biases")
    assert {name.split(".")[-2] for name in norms} == {
        "attention_norm",
        "feedforward_norm",
        "final_norm",
    }
    assert len(biases) == 5
    assert all(name.endswith("bias") for name in biases)
    assert not norms & biases
