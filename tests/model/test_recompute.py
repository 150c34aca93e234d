"""What is computed again is what was computed, and less is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from megapt.config import ModelConfig
from megapt.config.training import Recompute
from megapt.data import Attention, Batch, HeadSpec
from megapt.data.packing import Rows
from megapt.model import PretrainingModel
from megapt.model.attention import BACKENDS
from megapt.model.recompute import Recomputation
from megapt.model.trunk import Blocks
from tests.model.builders import LENGTH, STYLES, TOKENS, VOCABULARY, make_batch, random_example

KINDS: tuple[Attention, ...] = ("causal", "bidirectional", "prefix")
LAYERS = 4


def model_of(
    style: str, heads: list[HeadSpec], attention: str = "grouped", **settings: Any
) -> PretrainingModel:
    """A model in training mode; `settings` say how it is computed, `dropout` apart."""
    dropout = settings.pop("dropout", 0.0)
    config = ModelConfig(**{**STYLES[style], "num_layers": LAYERS, "dropout": dropout})
    return PretrainingModel(
        config,
        heads,
        vocabulary=VOCABULARY,
        max_positions=LENGTH,
        attention=BACKENDS[attention],
        **settings,
    )


def train(model: PretrainingModel, batch: Batch) -> list[Tensor]:
    """Return loss and gradients."""
    torch.manual_seed(1)
    loss = model(batch).loss
    loss.backward()
    return [loss, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_equal(mine: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(mine) == len(theirs) > LAYERS
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("recompute", ["full", "selective"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("attention", ["grouped", "rows"])
def test_losses_and_gradients_are_the_same_to_the_bit(
    attention: str,
    style: str,
    kind: Attention,
    dtype: torch.dtype,
    dropout: float,
    recompute: Recompute,
    every: int,
) -> None:
    examples = [random_example(n, kind, n, targets=n // 2) for n in (5, 9, 1, 7, 12)]
    batch = make_batch(examples, rows=Rows(16, 4, 2))
    plain = model_of(style, [TOKENS], attention, dropout=dropout).to(dtype)
    settings = {"recompute": recompute, "recompute_every": every, "dropout": dropout}
    model = model_of(style, [TOKENS], attention, **settings).to(dtype)
    assert_equal(train(model, batch), train(plain, batch))


@pytest.mark.parametrize("recompute", ["full", "selective"])
def test_generators_are_recomputed_too(recompute: Recompute) -> None:
    heads = [HeadSpec("guess", "generator", scale=0.5), HeadSpec("found", "detection", classes=2)]
    example = random_example(12, "bidirectional", 1, targets=4)
    asked = example.targets["tokens"]
    targets = {
        "guess": replace(asked, draws=np.array([0.1, 0.4, 0.6, 0.9])),
        "found": replace(asked, labels=np.zeros(4, dtype=np.int64)),
    }
    batch = make_batch([replace(example, targets=targets)], heads=heads)
    plain, model = model_of("pre", heads), model_of("pre", heads, recompute=recompute)
    assert calls_in_backward(plain, batch) == 0
    assert calls_in_backward(model, batch) == 2 * LAYERS
    assert_equal(train(model, batch), train(plain, batch))


def calls_in_backward(model: PretrainingModel, batch: Batch) -> int:
    """How many blocks the backward pass begins to compute again."""
    loss, calls = model(batch).loss, []
    stacks = [module for module in model.modules() if isinstance(module, Blocks)]
    handles = [
        block.register_forward_pre_hook(lambda *_: calls.append(1))
        for stack in stacks
        for block in stack
    ]
    loss.backward()
    model.zero_grad()
    for handle in handles:
        handle.remove()
    return len(calls)


@pytest.mark.parametrize(("every", "blocks"), [(1, 4), (2, 2), (3, 2), (9, 1)])
def test_one_block_of_so_many_is_recomputed(every: int, blocks: int) -> None:
    batch = make_batch([random_example(9, "causal", targets=3)])
    model = model_of("pre", [TOKENS], recompute="full", recompute_every=every)
    assert calls_in_backward(model, batch) == blocks


def test_nothing_is_kept_without_gradients() -> None:
    batch = make_batch([random_example(9, "causal", targets=3)])
    model, plain = model_of("pre", [TOKENS], recompute="full"), model_of("pre", [TOKENS])
    with torch.no_grad():
        assert torch.equal(model(batch).loss, plain(batch).loss)


def bytes_kept(model: PretrainingModel, batch: Batch) -> int:
    """Bytes that the blocks keep for the backward pass, through autograd's own hooks."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.trunk(batch)
    assert states.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_recomputed_block_keeps_its_input_alone() -> None:
    batch = make_batch([random_example(32, "causal", n) for n in range(8)])
    plain = bytes_kept(model_of("pre", [TOKENS]), batch)
    full = bytes_kept(model_of("pre", [TOKENS], recompute="full"), batch)
    second = bytes_kept(model_of("pre", [TOKENS], recompute="full", recompute_every=2), batch)
    assert full < second < plain
    states = len(batch.tokens) * STYLES["pre"]["hidden_size"] * 4
    # Besides: what the last norm keeps.
    assert full < (LAYERS + 4) * states < plain / 3


def flops_of_backward(recompute: Recompute, dropout: float) -> int:
    """Of matrix products and attention in the backward pass."""
    batch = make_batch([random_example(32, "causal", n, targets=3) for n in range(3)])
    loss = model_of("pre", [TOKENS], recompute=recompute, dropout=dropout)(batch).loss
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    return int(counter.get_total_flops())


def test_selective_computes_no_product_and_no_attention_again() -> None:
    plain, full = flops_of_backward("none", 0.0), flops_of_backward("full", 0.0)
    assert flops_of_backward("selective", 0.0) == plain < full


def test_selective_computes_attention_again_where_it_drops_weights() -> None:
    """Products of a fused kernel that draws numbers are not kept; here torch has none of them."""
    assert flops_of_backward("selective", 0.3) == flops_of_backward("none", 0.3)
    policies = [Recomputation("selective", dropout=drops).keeps for drops in (False, True)]
    fused = torch.ops.aten._scaled_dot_product_efficient_attention.default
    assert [keeps(fused) for keeps in policies] == [True, False]
    assert all(keeps(torch.ops.aten.mm.default) for keeps in policies)
