"""Ranks that share the positions of a batch compute, together, what one computes alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from megapt.config import ModelConfig
from megapt.data import Attention, Example, HeadSpec
from megapt.data.packing import Rows
from megapt.data.targets import HeadTargets
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.model import PretrainingModel
from megapt.model.attention import BACKENDS
from megapt.model.sequence import SequenceGroup
from tests.model.builders import LENGTH, STYLES, TOKENS, VOCABULARY, make_batch, random_example
from tests.ranks import run_ranks

HEADS = [
    TOKENS,
    HeadSpec("pair", "pair", classes=2),
    HeadSpec("guess", "generator", scale=0.5),
    HeadSpec("found", "detection", classes=2),
]
ROWS = Rows(16, 4, 2)


def group_of(ranks: Ranks) -> SequenceGroup:
    """All ranks as one group; one rank alone."""
    return SequenceGroup.of(ranks.with_sequence_parallel(ranks.world))


def asking(length: int, kind: Attention) -> Example:
    """An example that asks all heads something, as far as it is long enough."""
    example = random_example(length, kind, length, targets=length // 2)
    if length < 4:
        return example
    asked = example.targets["tokens"]
    count = len(asked.labels)
    zeros = np.zeros(count, dtype=np.int64)
    draws = np.random.default_rng(length).random(count)
    targets = {
        **example.targets,
        "pair": replace(asked, positions=zeros[:1], labels=zeros[:1] + 1),
        "guess": replace(asked, draws=draws, weights=draws + 0.5),
        "found": replace(asked, labels=zeros),
    }
    return replace(example, targets=targets)


def model_of(ranks: Ranks, style: str, attention: str, **how: Any) -> PretrainingModel:
    # Two, three and four ranks divide these heads, and the half of them that the generator has.
    config = ModelConfig(**{**STYLES[style], "num_heads": 24, "hidden_size": 48})
    return PretrainingModel(
        config,
        HEADS,
        vocabulary=VOCABULARY,
        max_positions=LENGTH,
        attention=BACKENDS[attention],
        sequence=group_of(ranks),
        **how,
    )


def summed(ranks: Ranks, tensor: Tensor) -> NDArray[np.float32]:
    """Return the sum over the ranks."""
    total = tensor.detach().clone()
    if ranks.world > 1:
        torch.distributed.all_reduce(total)
    return total.numpy()


def results(
    ranks: Ranks,
    lengths: Sequence[int],
    kind: Attention,
    style: str,
    attention: str,
    how: dict[str, Any],
) -> dict[str, NDArray[np.float32]]:
    """Return losses, sums of parts and gradients, summed over the ranks; and predictions."""
    model = model_of(ranks, style, attention, **how)
    batch = make_batch([asking(n, kind) for n in lengths], HEADS, ROWS)
    output = model(batch, {"tokens": 0.5, "pair": 2.0, "guess": 1.0, "found": 3.0})
    output.loss.backward()
    found = {"loss": summed(ranks, output.loss)}
    for part, sums in output.parts.items():
        found[f"{part} nll"], found[f"{part} correct"] = (summed(ranks, s) for s in sums)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name}: every rank must reduce every gradient"
        found[name] = summed(ranks, parameter.grad)
    with torch.no_grad():
        found |= {
            f"predicts {head.name}": model.predict(batch, head.name).numpy() for head in HEADS
        }
    return found


CASES: list[tuple[int, list[int], Attention, str, str, dict[str, Any]]] = [
    (2, [5, 9, 1, 7, 12], "causal", "pre", "grouped", {}),
    (2, [5, 9, 1, 7, 12], "prefix", "post", "rows", {"recompute": "full"}),
    (4, [5, 9, 1, 7, 12], "prefix", "pre", "grouped", {"recompute": "selective"}),
    (4, [11, 16], "bidirectional", "post", "grouped", {}),
    (3, [], "causal", "pre", "rows", {}),
]


@pytest.mark.parametrize(("world", "lengths", "kind", "style", "attention", "how"), CASES)
def test_ranks_together_are_one_alone(
    world: int,
    lengths: list[int],
    kind: Attention,
    style: str,
    attention: str,
    how: dict[str, Any],
) -> None:
    (expected,) = run_ranks(1, results, lengths, kind, style, attention, {})
    for found in run_ranks(world, results, lengths, kind, style, attention, how):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


def test_the_heads_of_a_generator_are_divided_too() -> None:
    config = ModelConfig(**{**STYLES["pre"], "num_heads": 2})
    sequence = SequenceGroup(None, 0, 2)
    with pytest.raises(
        ConfigError, match=r"^parallel\.sequence_parallel_size: 2 ranks .* 1 head"
    ) as error:
        PretrainingModel(
            config, HEADS, vocabulary=VOCABULARY, max_positions=LENGTH, sequence=sequence
        )
    assert "\n" not in str(error.value)


def few_positions(ranks: Ranks) -> tuple[float, float]:
    """Return the loss of two positions on these ranks, and alone."""
    config = ModelConfig(**{**STYLES["pre"], "num_heads": 4})
    batch = make_batch([random_example(2, "causal", targets=1)])
    models = [
        PretrainingModel(
            config, [TOKENS], vocabulary=VOCABULARY, max_positions=LENGTH, sequence=group
        )
        for group in (group_of(ranks), None)
    ]
    shared, alone = (model(batch).loss for model in models)
    return float(summed(ranks, shared)), float(alone)


def test_a_batch_may_have_fewer_positions_than_ranks() -> None:
    shared, alone = run_ranks(4, few_positions)[0]
    assert shared == pytest.approx(alone, rel=1e-5)


def joined_slopes(ranks: Ranks) -> tuple[list[float], list[float]]:
    """Join slices of 5 numbers; rank r loves number i (r + 1) * i times."""
    group = group_of(ranks)
    values = torch.arange(5.0)[:, None]
    mine = group.slice(values).clone().requires_grad_()
    whole = group.join(mine, 5)
    grad_logits = torch.arange(5.0)[:, None] * (ranks.rank + 1)
    torch.autograd.backward(whole, grad_logits)
    assert mine.grad is not None
    return whole[:, 0].tolist(), mine.grad[:, 0].tolist()


def test_what_is_joined_gets_the_slopes_of_all_ranks_once() -> None:
    wholes, grad_logits = zip(*run_ranks(2, joined_slopes), strict=True)
    assert wholes == ([0, 1, 2, 3, 4],) * 2
    assert grad_logits == ([0, 3, 6], [9, 12, 0])  # The last stands for nothing.


@settings(max_examples=50)
@given(st.integers(0, 20), st.integers(1, 8), st.booleans())
def test_shares_are_the_targets_end_to_end(count: int, size: int, weighted: bool) -> None:
    numbers = torch.arange(count)
    weights = numbers.float() if weighted else None
    asked = HeadTargets(numbers, numbers + 1, size=7.0, weights=weights, windows=3)
    shares = [SequenceGroup(None, rank, size).share(asked) for rank in range(size)]
    assert torch.cat([share.places for share in shares]).tolist() == numbers.tolist()
    assert torch.cat([share.labels for share in shares]).tolist() == asked.labels.tolist()
    assert all((share.weights is None) == (not weighted) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def bytes_kept(ranks: Ranks) -> int:
    """Bytes that the blocks keep for the backward pass on this rank."""
    model = model_of(ranks, "pre", "grouped")
    batch = make_batch([random_example(32, "causal", n) for n in range(8)])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    embedded = model.trunk.embed(batch)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.trunk.blocks(embedded, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_rank_keeps_its_part_of_the_activations() -> None:
    (alone,) = run_ranks(1, bytes_kept)
    for world in (2, 4):
        assert max(run_ranks(world, bytes_kept)) < 1.15 * alone / world


def test_a_model_alone_needs_no_deepspeed() -> None:
    code = "import sys, megapt.model; assert 'deepspeed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
