from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from megapt.config import ModelConfig
from megapt.data import Batch, CounterRng, Example, Targets, Window
from megapt.model import PretrainingModel
from megapt.objectives import registry
from tests.model.making import (
    CLASSES,
    MODERN,
    STYLES,
    TOKENS,
    make_batch,
    make_model,
    random_example,
)
from tests.objectives.building import build
from tests.windows import VOCABULARY, random_piece

BOTH = [TOKENS, CLASSES]


def classified(example: Example, label: int) -> Example:
    targets = {**example.targets, "class": Targets(np.zeros(1, dtype=np.int64), np.array([label]))}
    return replace(example, targets=targets)


def three_examples() -> Batch:
    examples = [
        random_example(9, "causal", 1, targets=4),
        random_example(6, "causal", 2, targets=2),
        classified(random_example(12, "bidirectional", 3, targets=5), 2),
    ]
    return make_batch(examples, heads=BOTH)


@pytest.mark.parametrize("style", ["pre", "post"])
def test_the_loss_is_the_sum_over_the_target_positions(style: str) -> None:
    model, batch = make_model(ModelConfig(**STYLES[style]), BOTH), three_examples()
    states = model.trunk(batch)
    expected, hits = 0.0, 0
    places, labels = batch.targets["tokens"]
    for place, label in zip(places.tolist(), labels.tolist(), strict=True):
        one = torch.tensor([place])
        logits = model.heads["tokens"](states, one, batch)[0]
        expected -= functional.log_softmax(logits, dim=-1)[label].item()
        hits += int(logits.argmax() == label)
    loss, correct = model(batch)["tokens"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert correct.item() == hits


def test_heads_read_target_positions_alone() -> None:
    model, batch = make_model(ModelConfig(**MODERN), BOTH), three_examples()
    rows: dict[str, int] = {}
    for name, head in model.heads.items():
        head.projection.register_forward_pre_hook(
            lambda _, inputs, name=name: rows.__setitem__(name, len(inputs[0]))
        )
    model(batch)
    assert rows == {"tokens": 11, "class": 1}


def test_losses_of_split_batches_add_up() -> None:
    model = make_model(ModelConfig(**MODERN))
    examples = [random_example(n, "causal", n, targets=3) for n in (5, 20, 32)]
    whole = model(make_batch(examples))["tokens"]
    parts = [model(make_batch([example]))["tokens"] for example in examples]
    for i in range(2):
        assert whole[i].item() == pytest.approx(sum(part[i].item() for part in parts), rel=1e-5)


@pytest.mark.parametrize("examples", [[], [random_example(5, "causal")]])
def test_a_head_without_targets_gives_0_and_zero_gradients(examples: list[Example]) -> None:
    model = make_model(ModelConfig(**MODERN), BOTH)
    results = model(make_batch(examples, heads=BOTH))
    assert [(loss.item(), correct.item()) for loss, correct in results.values()] == [(0, 0)] * 2
    torch.stack([loss for loss, _ in results.values()]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name}: every rank must reduce every gradient"
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_objective_survives_a_batch_without_examples(name: str) -> None:
    """A rank may have no held-out window left, and `nsp` finds no pair in some windows."""
    objective = build(name)
    heads = objective.heads
    model = make_model(ModelConfig(**MODERN), heads)
    results = model(make_batch([], heads=heads))
    torch.stack([loss for loss, _ in results.values()]).sum().backward()
    assert all(loss.item() == 0 for loss, _ in results.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing, "every rank must reduce every gradient"


def test_predict_gives_the_logits_at_the_targets() -> None:
    model, batch = make_model(ModelConfig(**MODERN), BOTH), three_examples()
    logits = model.predict(batch, "tokens")
    assert logits.shape == (11, 50)
    loss = functional.cross_entropy(logits, batch.targets["tokens"][1], reduction="sum")
    assert loss.item() == pytest.approx(model(batch)["tokens"][0].item(), rel=1e-5)


def test_one_idle_head_leaves_the_other_as_it_was() -> None:
    model = make_model(ModelConfig(**MODERN), BOTH)
    examples = [random_example(9, "causal", 1, targets=4)]
    loss, _ = model(make_batch(examples, heads=BOTH))["tokens"]
    alone = make_model(ModelConfig(**MODERN), [TOKENS])
    assert loss.item() == alone(make_batch(examples))["tokens"][0].item()


def test_results_of_a_bfloat16_model_are_float32() -> None:
    model = make_model(ModelConfig(**MODERN), BOTH)
    exact = model(three_examples())["tokens"][0].item()
    loss, correct = model.to(torch.bfloat16)(three_examples())["tokens"]
    assert loss.dtype == correct.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.05)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("style", ["pre", "post"])
def test_a_model_learns_a_batch_by_heart(style: str) -> None:
    model, batch = make_model(ModelConfig(**STYLES[style]), BOTH), three_examples()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.stack([loss for loss, _ in model(batch).values()]).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() / 12 < 0.1
    assert [float(correct) for _, correct in model(batch).values()] == [11, 1]


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("name", sorted(registry()))
def test_every_objective_trains_the_trunk(name: str, positions: str) -> None:
    objective = build(name)
    windows = [
        Window(0, n, tuple(random_piece(length, n, document=length) for length in (30, 9, 6)))
        for n in range(16)
    ]
    examples = [
        example
        for window in windows
        for example in objective.examples(window, CounterRng(0, window.index))
    ]
    model = PretrainingModel(
        ModelConfig(**{**MODERN, "positions": positions}),
        objective.heads,
        vocabulary=VOCABULARY.size,
        max_positions=48,
    )
    batch = make_batch(examples, heads=objective.heads)
    loss = torch.stack([loss for loss, _ in model(batch).values()]).sum()
    loss.backward()
    assert torch.isfinite(loss)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any(), parameter_name
