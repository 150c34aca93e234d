from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from megapt.config import LossConfig, ModelConfig
from megapt.data import Batch, CounterRng, Example, HeadSpec, Targets, Window
from megapt.model import PretrainingModel
from megapt.objectives import OBJECTIVES
from tests.model.builders import (
    CLASSES,
    MODERN,
    STYLES,
    TOKENS,
    make_batch,
    make_model,
    random_example,
)
from tests.objectives.builders import build
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
    expected, correct = 0.0, 0
    asked = batch.targets["tokens"]
    for place, label in zip(asked.places.tolist(), asked.labels.tolist(), strict=True):
        logits = model.heads["tokens"].logits(states, batch, torch.tensor([place]))[0]
        expected -= functional.log_softmax(logits, dim=-1)[label].item()
        correct += int(logits.argmax() == label)
    part = model(batch).parts["tokens"]
    assert part.nll.item() == pytest.approx(expected, rel=1e-5)
    assert part.correct.item() == correct


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_without_segments_a_model_trains_as_with_a_table_of_zeros(positions: str) -> None:
    usual = {**MODERN, "positions": positions}
    zeros, none = (make_model(ModelConfig(**{**usual, "num_segments": n}), BOTH) for n in (2, 0))
    table = zeros.trunk.embeddings.segments
    assert table is not None
    torch.nn.init.zeros_(table.weight).requires_grad_(False)
    batch, losses = three_examples(), []
    for model in (zeros, none):
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
        for _ in range(4):
            optimizer.zero_grad()
            losses.append(model(batch).loss)
            losses[-1].backward()
            optimizer.step()
    assert losses[:4] == losses[4:]
    trained = zeros.state_dict()
    assert not trained.pop("trunk.embeddings.segments.weight").any()
    assert trained.keys() == none.state_dict().keys()
    assert all(torch.equal(trained[name], value) for name, value in none.state_dict().items())


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
    whole = model(make_batch(examples))
    outputs = [model(make_batch([example])) for example in examples]
    assert whole.loss.item() == pytest.approx(sum(o.loss.item() for o in outputs), rel=1e-5)
    for i in range(2):
        summed = sum(output.parts["tokens"][i].item() for output in outputs)
        assert whole.parts["tokens"][i].item() == pytest.approx(summed, rel=1e-5)


@pytest.mark.parametrize("examples", [[], [random_example(5, "causal")]])
def test_a_head_without_targets_gives_0_and_zero_gradients(examples: list[Example]) -> None:
    model = make_model(ModelConfig(**MODERN), BOTH)
    output = model(make_batch(examples, heads=BOTH))
    assert output.loss.item() == 0
    assert output.parts == {"tokens": (0, 0), "class": (0, 0)}
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name}: every rank must reduce every gradient"
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_survives_a_batch_without_examples(name: str) -> None:
    """A rank may have no held-out window left, and `nsp` finds no pair in some windows."""
    objective = build(name)
    heads = objective.heads
    model = make_model(ModelConfig(**MODERN), heads)
    output = model(make_batch([], heads=heads))
    output.loss.backward()
    assert output.loss.item() == 0
    assert output.parts == {head.name: (0, 0) for head in heads}
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing, "every rank must reduce every gradient"


def test_predict_gives_the_logits_at_the_targets() -> None:
    model, batch = make_model(ModelConfig(**MODERN), BOTH), three_examples()
    logits = model.predict(batch, "tokens")
    assert logits.shape == (11, 50)
    loss = functional.cross_entropy(logits, batch.targets["tokens"].labels, reduction="sum")
    assert loss.item() == pytest.approx(model(batch).parts["tokens"].nll.item(), rel=1e-5)


def test_one_idle_head_leaves_the_other_as_it_was() -> None:
    model = make_model(ModelConfig(**MODERN), BOTH)
    examples = [random_example(9, "causal", 1, targets=4)]
    both = model(make_batch(examples, heads=BOTH))
    alone = make_model(ModelConfig(**MODERN), [TOKENS])(make_batch(examples))
    assert both.loss.item() == alone.loss.item()
    assert both.parts["tokens"] == alone.parts["tokens"]


def test_results_of_a_bfloat16_model_are_float32() -> None:
    model = make_model(ModelConfig(**MODERN), BOTH)
    exact = model(three_examples()).loss.item()
    output = model.to(torch.bfloat16)(three_examples())
    assert output.loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for part in output.parts.values() for value in part)
    assert output.loss.item() == pytest.approx(exact, rel=0.05)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def weighted(example: Example, part: str, weights: list[float]) -> Example:
    (target,) = example.targets.values()
    return replace(example, targets={part: replace(target, weights=np.array(weights))})


def test_factors_and_weights_scale_the_losses() -> None:
    """The loss has both, what is reported the weights alone."""
    model = make_model(ModelConfig(**MODERN), BOTH)
    example = random_example(9, "causal", 1, targets=3)
    batch = make_batch([weighted(example, "tokens", [0.5, 0.0, 2.0])], heads=BOTH)
    nll = functional.cross_entropy(
        model.predict(batch, "tokens"), batch.targets["tokens"].labels, reduction="none"
    )
    expected = 0.5 * nll[0] + 2.0 * nll[2]
    output = model(batch, {"tokens": 1e-3, "class": 5.0})
    torch.testing.assert_close(output.loss, 1e-3 * expected)
    torch.testing.assert_close(output.parts["tokens"].nll, expected)
    torch.testing.assert_close(model(batch).loss, expected)


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_parts_of_one_module_are_computed_at_once(kind: Literal["token", "sequence"]) -> None:
    """As if each part had a module with the same weights; the projection runs once."""
    one = HeadSpec("one", kind, classes=50, module="shared")
    other = HeadSpec("other", kind, classes=50, module="shared")
    apart = [replace(one, module=""), replace(other, module="")]
    examples = [
        weighted(random_example(9, "causal", 1, targets=2), "one", [1.0, 3.0]),
        weighted(random_example(7, "causal", 2, targets=3), "other", [2.0, 0.5, 1.0]),
        weighted(random_example(5, "causal", 3, targets=1), "one", [0.7]),
    ]
    factors = {"one": 0.3, "other": 2.0}
    config = ModelConfig(**{**MODERN, "tie_word_embeddings": False})
    shared, separate = make_model(config, [one, other]), make_model(config, apart)
    weights = shared.heads["shared"].state_dict()
    for head in separate.heads.values():
        head.load_state_dict(weights)
    calls: list[int] = []
    shared.heads["shared"].projection.register_forward_pre_hook(
        lambda _, inputs: calls.append(len(inputs[0]))
    )
    mine = shared(make_batch(examples, heads=[one, other]), factors)
    expected = separate(make_batch(examples, heads=apart), factors)
    assert calls == [6]
    torch.testing.assert_close(mine.loss, expected.loss)
    assert mine.parts.keys() == expected.parts.keys() == {"one", "other"}
    for part, sums in mine.parts.items():
        torch.testing.assert_close(sums.nll, expected.parts[part].nll)
        assert sums.correct == expected.parts[part].correct


def test_z_loss_and_smoothing_change_the_loss_of_tokens_alone() -> None:
    config, batch = ModelConfig(**MODERN), three_examples()
    terms = LossConfig(z_loss=0.1, label_smoothing=0.2)
    plain, model = make_model(config, BOTH)(batch), make_model(config, BOTH, loss=terms)
    output = model(batch)
    assert output.parts == plain.parts
    logits, labels = model.predict(batch, "tokens"), batch.targets["tokens"].labels
    expected = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.2)
    expected = expected + 0.1 * logits.logsumexp(dim=-1).square().sum()
    torch.testing.assert_close(output.loss - output.parts["class"].nll, expected)


@pytest.mark.parametrize("style", ["pre", "post"])
def test_a_model_learns_a_batch_by_heart(style: str) -> None:
    model, batch = make_model(ModelConfig(**STYLES[style]), BOTH), three_examples()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
    assert loss.item() / 12 < 0.1
    assert [float(part.correct) for part in model(batch).parts.values()] == [11, 1]


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
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
    loss = model(batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any(), parameter_name
