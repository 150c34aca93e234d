from __future__ import annotations

import math

import pytest
import torch

from megapt.config import ModelConfig
from megapt.model import PretrainingModel
from megapt.objectives import OBJECTIVES
from tests.model.builders import (
    CLASSES,
    MODERN,
    STYLES,
    TOKENS,
    VANILLA,
    make_batch,
    make_model,
    random_example,
)
from tests.objectives.builders import build

WIDE = {"hidden_size": 64, "num_heads": 4, "intermediate_size": 128, "init_std": 0.02}


def trunk_of(model: PretrainingModel) -> dict[str, torch.Tensor]:
    return dict(model.trunk.named_parameters())


@pytest.mark.parametrize("style", ["pre", "post"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_objective_starts_from_the_same_trunk(style: str, tied: bool) -> None:
    config = ModelConfig(**{**STYLES[style], "tie_word_embeddings": tied})
    expected = trunk_of(make_model(config, [TOKENS], seed=3))
    for name in OBJECTIVES:
        torch.rand(7)  # whatever was drawn before
        found = trunk_of(make_model(config, build(name).heads, seed=3))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_heads_that_two_objectives_share_start_the_same_too() -> None:
    config = ModelConfig(**{**MODERN, "tie_word_embeddings": False})
    one, other = make_model(config, [CLASSES, TOKENS]), make_model(config, [TOKENS])
    assert torch.equal(
        one.heads["tokens"].projection.weight, other.heads["tokens"].projection.weight
    )


@pytest.mark.parametrize("style", ["pre", "post"])
def test_another_seed_gives_other_matrices(style: str) -> None:
    config = ModelConfig(**STYLES[style])
    one, other = trunk_of(make_model(config, seed=3)), trunk_of(make_model(config, seed=4))
    for name in one:
        assert torch.equal(one[name], other[name]) == (one[name].ndim < 2), name


def test_no_two_matrices_are_alike() -> None:
    model = make_model(ModelConfig(**MODERN), [TOKENS, CLASSES])
    starts = [p.flatten()[:4].tolist() for p in model.parameters() if p.ndim > 1]
    assert len({tuple(round(x / max(map(abs, s)), 4) for x in s) for s in starts}) == len(starts)


def test_norms_start_at_1_and_biases_at_0() -> None:
    for name, parameter in make_model(ModelConfig(**VANILLA), [TOKENS, CLASSES]).named_parameters():
        if parameter.ndim < 2:
            assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name


@pytest.mark.parametrize(
    ("style", "positions"), [("pre", "rotary"), ("post", "learned"), ("post", "sinusoidal")]
)
def test_standard_deviations(style: str, positions: str) -> None:
    config = ModelConfig(**{**STYLES[style], **WIDE, "positions": positions})
    model = PretrainingModel(config, [TOKENS, CLASSES], vocabulary=400, max_positions=64)
    for name, parameter in model.named_parameters():
        if parameter.numel() < 1000:
            continue
        std = 0.02
        if style == "pre" and name.endswith(("attention.output.weight", "down.weight")):
            std /= math.sqrt(2 * config.num_layers)
        # Dense layers of heads keep the scale of what they read; scaled words are drawn smaller.
        if name.endswith("dense.weight") or (
            positions == "sinusoidal" and name.endswith("words.weight")
        ):
            std = 1 / math.sqrt(64)
        margin = 5 / math.sqrt(2 * parameter.numel())
        assert parameter.std().item() == pytest.approx(std, rel=margin), name
        assert abs(parameter.mean().item()) < 5 * std / math.sqrt(parameter.numel())


@pytest.mark.parametrize(("style", "positions"), [("pre", "rotary"), ("post", "learned")])
def test_an_untrained_model_guesses(style: str, positions: str) -> None:
    """Its loss is near log V: no preset begins with a confident mistake."""
    config = ModelConfig(**{**STYLES[style], **WIDE, "positions": positions})
    model = make_model(config)
    examples = [random_example(32, "bidirectional", seed=s, targets=32) for s in range(8)]
    loss = model(make_batch(examples)).loss.item() / 256
    assert loss == pytest.approx(math.log(50), abs=0.1)
