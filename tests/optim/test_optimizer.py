"""AdamW, its two groups, and gradient clipping, through the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megapt.config import ModelConfig, OptimizerConfig, Origins, RunConfig
from megapt.data import HeadSpec
from megapt.evaluation.losses import Totals, count_parts, factors
from megapt.model import PretrainingModel, build_model
from megapt.optim.parameter_groups import parameter_groups
from megapt.training.prepared import prepare
from tests.ranks import run_ranks
from tests.training.runs import ALONE, last_weights, records_of, run_config, train

# (ranks, ZeRO stage, precision, largest gradient norm)
JOBS = [
    (1, 0, "fp32", 0.0),
    (1, 0, "fp32", 0.1),
    (1, 0, "fp32", 1e6),
    (2, 0, "fp32", 0.1),
    (2, 1, "fp32", 0.1),
    (2, 2, "fp32", 0.0),
    (2, 2, "fp32", 0.1),
    (2, 3, "fp32", 0.0),
    (2, 3, "fp32", 0.1),
    (1, 0, "bf16", 0.0),
    (2, 0, "bf16", 0.1),
    (2, 1, "bf16", 0.1),
    (2, 2, "bf16", 0.0),
    (2, 3, "bf16", 0.1),
]


def first_gradients(config: RunConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The initial weights, and the gradients of the first global batch, by plain torch."""
    prepared = prepare(config.model_copy(update={"output": "never"}), ALONE, Origins())
    model = build_model(config, prepared.parts.objective.heads, prepared.corpus.vocabulary.size)
    batch = prepared.maker.batch(range(config.training.global_batch_size)).widen()
    heads = prepared.parts.objective.heads
    totals = Totals(*count_parts([batch], heads))
    model(batch, factors(heads, totals)).loss.backward()
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    return weights, {name: weight.grad for name, weight in model.named_parameters()}


def norm_of(gradients: dict[str, Tensor]) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).norm())


@pytest.mark.parametrize(("world", "stage", "precision", "clip"), JOBS)
def test_the_first_update_is_that_of_adamw_by_hand(
    corpus_folder: Path, tmp_path: Path, world: int, stage: int, precision: str, clip: float
) -> None:
    """With a large epsilon the update keeps the gradient's size, so that clipping shows."""
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        objective={"name": "bert"},
        optimizer={"lr": 0.5, "eps": 1.0, "weight_decay": 0.2, "max_grad_norm": clip},
        schedule={"name": "constant", "warmup_ratio": 0.0},
        parallel={"zero_stage": stage},
        training={"budget": {"amount": 1.0}, "precision": precision},
    )
    run_ranks(world, train, config)
    before, gradients = first_gradients(config)
    norm = norm_of(gradients)
    assert norm > 0.1
    coarse = precision == "bf16"
    [record] = records_of(config, "train")
    assert record["gradient_norm"] == pytest.approx(norm, rel=1e-2 if coarse else 1e-4)
    factor = min(1.0, clip / norm) if clip else 1.0
    after = last_weights(config)
    assert after.keys() == before.keys()
    for name, gradient in gradients.items():
        clipped = factor * gradient
        decay = 0.2 if gradient.ndim > 1 and not name.endswith("segments.weight") else 0.0
        expected = -0.5 * decay * before[name] - 0.5 * clipped / (clipped.abs() + 1.0)
        wrong = (after[name] - before[name] - expected).norm()
        # A small update of a large weight is rounded with the weight.
        rounding = torch.finfo(torch.float32).eps * before[name].norm()
        # A gradient that is a sum over all positions is rounded with each of them.
        allowed = (0.1 if coarse else 0.02) * expected.norm() + rounding
        assert wrong < allowed, (name, float(wrong / expected.norm()))


@pytest.mark.parametrize("style", ["modern", "vanilla"])
def test_only_matrices_and_words_decay(style: str) -> None:
    config = ModelConfig(
        num_layers=2,
        hidden_size=8,
        num_heads=2,
        intermediate_size=16,
        **{"modern": {}, "vanilla": {"positions": "learned", "norm": "layernorm", "bias": True}}[
            style
        ],
        tie_word_embeddings=style == "modern",
    )
    heads = (HeadSpec("tokens", "token"), HeadSpec("class", "sequence", 3))
    model = PretrainingModel(config, heads, vocabulary=11, max_positions=32)
    decayed, plain = parameter_groups(model, OptimizerConfig(weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert sum(len(group["params"]) for group in (decayed, plain)) == len(names)
    for name in (names[parameter] for parameter in plain["params"]):
        assert name.endswith(("bias", "norm.weight", "positions.weight", "segments.weight")), name
    for name in (names[parameter] for parameter in decayed["params"]):
        assert name.endswith("weight")
        assert not name.endswith(("norm.weight", "positions.weight", "segments.weight")), name
