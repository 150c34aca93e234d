"""The order of rows in fused matrices changes where numbers stand, and nothing else."""

from __future__ import annotations

import copy
import math
from types import MethodType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from megapt.config import ModelConfig
from megapt.data import Batch, derive_key
from megapt.model import PretrainingModel
from megapt.model.attention import Attention, AttentionPlan
from megapt.model.embeddings import rotate
from megapt.model.generator import Generator
from megapt.model.layout import fused_rows
from megapt.model.trunk import FeedForward
from megapt.optim.muon import orthogonalized
from tests.model.builders import MODERN, VANILLA, make_batch, make_model, random_example
from tests.objectives.builders import build

CONFIGS = {
    "vanilla": VANILLA,
    "modern": MODERN,
    "biased": {**MODERN, "bias": True},
    "heads that do not divide": {
        **MODERN,
        "hidden_size": 32,
        "num_heads": 16,
        "intermediate_size": 24,
    },
    "no common divisor": {**MODERN, "intermediate_size": 25},
    "one head": {**MODERN, "num_heads": 1},
}
configs = pytest.mark.parametrize("values", CONFIGS.values(), ids=CONFIGS.keys())


def model_of(values: dict[str, object], size: float = 0.5) -> PretrainingModel:
    """A model with a generator."""
    heads = build("electra", generator_size=size).heads
    return make_model(ModelConfig(**values), heads, seed=4)  # type: ignore[arg-type]


def rows_of(model: PretrainingModel) -> dict[str, Tensor]:
    return fused_rows({name: p.shape for name, p in model.named_parameters()}, model.config)


def old_attention(self: Attention, x: Tensor, plan: AttentionPlan) -> Tensor:
    q, k, v = self.qkv(x).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (self.groups, -1)) for part in (q, k, v))
    if plan.rotary is not None:
        q, k = rotate(q, *plan.rotary), rotate(k, *plan.rotary)
    mixed: Tensor = self.output(self.attend(plan, q, k, v, 0.0).flatten(1))
    return mixed


def old_feedforward(self: FeedForward, x: Tensor) -> Tensor:
    gate, value = self.up(x).chunk(2, dim=-1)
    out: Tensor = self.down(functional.silu(gate) * value)
    return out


def in_old_order(model: PretrainingModel) -> PretrainingModel:
    """The same model as it was before: other rows, and other layers that read them."""
    old = copy.deepcopy(model)
    parameters = dict(old.named_parameters())
    with torch.no_grad():
        for name, rows in rows_of(model).items():
            parameters[name].copy_(parameters[name][rows.argsort()])
    for module in old.modules():
        if isinstance(module, Attention):
            module.forward = MethodType(old_attention, module)  # type: ignore[method-assign]
        elif isinstance(module, FeedForward) and model.config.activation == "swiglu":
            module.forward = MethodType(old_feedforward, module)  # type: ignore[method-assign]
    return old


def outputs(model: PretrainingModel, batch: Batch) -> list[Tensor]:
    """The states of trunk and generator."""
    generator = model.generators["generator"]
    assert isinstance(generator, Generator)
    return [model.trunk(batch), generator.states(model.trunk.embed(batch), batch)]


def fill_biases(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))


@configs
def test_the_function_and_its_gradients_are_those_of_the_old_order(
    values: dict[str, object],
) -> None:
    model = model_of(values)
    fill_biases(model)
    old = in_old_order(model)
    batch = make_batch([random_example(n, "prefix", seed=n) for n in (13, 9)])
    for mine, theirs in zip(outputs(model, batch), outputs(old, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
        weights = torch.randn(mine.shape, generator=torch.Generator().manual_seed(0))
        (mine * weights).sum().backward()
        (theirs * weights).sum().backward()
    moved = rows_of(model)
    found, expected = (dict(each.named_parameters()) for each in (model, old))
    for name, parameter in found.items():
        mine, theirs = parameter.grad, expected[name].grad
        if mine is None or theirs is None:
            assert mine is theirs, name
            continue
        theirs = theirs[moved[name]] if name in moved else theirs
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, atol=2e-6 * scale + 1e-9, rtol=1e-5)


@configs
def test_matrices_are_drawn_in_the_old_order(values: dict[str, object]) -> None:
    model = model_of(values)
    parameters = dict(model.named_parameters())
    for name, rows in rows_of(model).items():
        if name.endswith("bias"):
            continue
        generator = torch.Generator().manual_seed(derive_key(4, name) >> 1)
        drawn = torch.empty(parameters[name].shape).normal_(0.0, 0.2, generator=generator)
        assert torch.equal(parameters[name], drawn[rows]), name


@configs
def test_a_split_by_head_is_a_slice_of_rows(values: dict[str, object]) -> None:
    """Each of so many ranks gets its heads' queries, keys and values, and the same of the gate."""
    config = ModelConfig(**values)  # type: ignore[arg-type]
    shapes = {
        "attention.qkv.weight": (3 * config.hidden_size, config.hidden_size),
        "feedforward.up.weight": (2 * config.intermediate_size, config.hidden_size),
    }
    moved = fused_rows(shapes, config)
    assert len(moved) == (2 if config.activation == "swiglu" else 1)
    for ranks in range(1, config.num_heads + 1):
        if config.num_heads % ranks or config.intermediate_size % ranks:
            continue
        for rows, parts in zip(moved.values(), (3, 2), strict=False):
            places = torch.arange(len(rows)).view(parts, ranks, -1).unbind(dim=1)
            for mine, expected in zip(rows.chunk(ranks), places, strict=True):
                assert torch.equal(mine.sort().values, expected.flatten())


@pytest.mark.parametrize("size", [0.1, 0.25, 0.5, 0.75, 1.0])
@configs
def test_the_shapes_tell_how_many_heads_a_generator_has(
    values: dict[str, object], size: float
) -> None:
    model = model_of(values, size)
    generator = model.generators["generator"]
    assert isinstance(generator, Generator)
    moved, small = rows_of(model), generator.config
    [block, *_] = generator.blocks
    own = fused_rows({name: p.shape for name, p in block.named_parameters()}, small)
    for name, rows in own.items():
        assert torch.equal(moved[f"generators.generator.blocks.0.{name}"], rows)
    blocks = math.gcd(small.num_heads, small.intermediate_size)
    assert block.feedforward.blocks == blocks
    assert block.attention.groups == small.num_heads


@pytest.mark.parametrize(("rows", "columns"), [(96, 32), (24, 48)])
def test_muon_does_not_see_the_order_of_rows(rows: int, columns: int) -> None:
    """A permutation of rows is orthogonal, and the orthogonalized matrix turns with it."""
    generator = torch.Generator().manual_seed(1)
    momentum = torch.randn(rows, columns, generator=generator)
    order = torch.randperm(rows, generator=generator)
    mine, theirs = orthogonalized(momentum[order]).float(), orthogonalized(momentum)[order].float()
    assert float((mine - theirs).norm() / theirs.norm()) < 0.02
