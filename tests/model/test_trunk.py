from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from megapt.config import ModelConfig
from megapt.data import Attention
from megapt.model.trunk import FeedForward
from tests.model.builders import (
    MODERN,
    STYLES,
    VANILLA,
    make_batch,
    make_model,
    random_example,
    states_of,
    with_tokens,
)

attentions = pytest.mark.parametrize("attention", ["causal", "bidirectional", "prefix"])
architectures = pytest.mark.parametrize(
    "config",
    [
        pytest.param(ModelConfig(**{**style, "positions": positions}), id=f"{name}-{positions}")
        for name, style in STYLES.items()
        for positions in ("learned", "sinusoidal", "rotary")
    ],
)


@attentions
def test_the_order_of_the_examples_does_not_matter(attention: Attention) -> None:
    """Groups of like length are gathered from anywhere in the batch and put back."""
    model = make_model(ModelConfig(**MODERN))
    examples = [random_example(n, attention, seed=n) for n in (1, 30, 2, 29, 8, 9, 3, 7)]
    forward = model.trunk(make_batch(examples)).split([len(e) for e in examples])
    backward = model.trunk(make_batch(examples[::-1])).split([len(e) for e in examples[::-1]])
    for mine, other in zip(forward, backward[::-1], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def changed(config: ModelConfig, attention: Attention, place: int) -> list[bool]:
    """Which states of a lone example of 12 tokens change with the token at `place`."""
    model = make_model(config)
    batch = make_batch([random_example(12, attention, seed=3, prefix=5)])
    before = states_of(model, batch)
    after = states_of(model, with_tokens(batch, place, int(batch.tokens[place]) % 49 + 1))
    return ((before - after).abs().amax(dim=-1) > 1e-6).tolist()


@architectures
def test_causal_states_see_what_stands_before_them_and_nothing_after(config: ModelConfig) -> None:
    for place in (0, 4, 11):
        assert changed(config, "causal", place) == [i >= place for i in range(12)]


@architectures
def test_bidirectional_states_see_everything(config: ModelConfig) -> None:
    for place in (0, 4, 11):
        assert all(changed(config, "bidirectional", place))


@architectures
def test_the_source_sees_itself_both_ways_and_the_target_the_source(config: ModelConfig) -> None:
    for place in (0, 4):
        assert all(changed(config, "prefix", place))


@architectures
def test_the_source_does_not_see_the_target_and_the_target_is_causal(config: ModelConfig) -> None:
    for place in (5, 8, 11):
        assert changed(config, "prefix", place) == [i >= place for i in range(12)]


@architectures
def test_the_order_of_the_tokens_matters(config: ModelConfig) -> None:
    """Without positions, a bidirectional last state would be the same for both orders."""
    model = make_model(config)
    batch = make_batch([random_example(6, "bidirectional", seed=1)])
    first, second = batch.tokens[0].item(), batch.tokens[1].item()
    swapped = with_tokens(with_tokens(batch, 0, int(second)), 1, int(first))
    assert (states_of(model, batch)[5] - states_of(model, swapped)[5]).abs().max() > 1e-4


@pytest.mark.parametrize("style", ["pre", "post"])
def test_the_segment_matters(style: str) -> None:
    model = make_model(ModelConfig(**STYLES[style]))
    batch = make_batch([random_example(6, "bidirectional")])
    other = replace(batch, segments=1 - batch.segments)
    assert (states_of(model, batch) - states_of(model, other)).abs().max() > 1e-4


def test_pre_norm_ends_in_a_norm_and_post_norm_begins_with_one() -> None:
    pre, post = make_model(ModelConfig(**MODERN)).trunk, make_model(ModelConfig(**VANILLA)).trunk
    assert pre.final_norm is not None
    assert pre.embedding_norm is None
    assert post.final_norm is None
    assert post.embedding_norm is not None


@pytest.mark.parametrize("style", ["pre", "post"])
def test_states_are_normalised_at_the_start(style: str) -> None:
    batch = make_batch([random_example(20, "bidirectional")])
    states = states_of(make_model(ModelConfig(**STYLES[style])), batch)
    torch.testing.assert_close(states.square().mean(dim=-1), torch.ones(20), atol=1e-3, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_the_feed_forward_layer_is_the_published_formula(activation: str) -> None:
    config = ModelConfig(**{**VANILLA, "activation": activation})
    torch.manual_seed(0)
    layer, x = FeedForward(config), torch.randn(3, 16)
    inner = x @ layer.up.weight.T + layer.up.bias
    if activation == "swiglu":
        # Two heads: a half of the gate and the same half of the value, then the other halves.
        first, second, third, fourth = inner.split(12, dim=-1)
        gate, value = torch.cat([first, third], dim=-1), torch.cat([second, fourth], dim=-1)
        inner = gate * torch.sigmoid(gate) * value
    elif activation == "gelu":
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    else:
        inner = inner.clamp(min=0)
    expected = inner @ layer.down.weight.T + layer.down.bias
    torch.testing.assert_close(layer(x), expected)


def test_a_config_without_biases_has_none() -> None:
    names = [name for name, _ in make_model(ModelConfig(**MODERN)).trunk.named_parameters()]
    assert not [name for name in names if name.endswith("bias")]


def test_dropout_acts_in_training_alone() -> None:
    model = make_model(ModelConfig(**{**VANILLA, "dropout": 0.3}))
    batch = make_batch([random_example(20, "causal")])
    assert torch.equal(states_of(model, batch), states_of(model, batch))
    model.train()
    assert not torch.equal(states_of(model, batch), states_of(model, batch))


@architectures
@attentions
def test_a_bfloat16_model_stays_close_to_the_float32_one(
    config: ModelConfig, attention: Attention
) -> None:
    batch = make_batch([random_example(n, attention, seed=n) for n in (13, 9)])
    exact = states_of(make_model(config), batch)
    rough = states_of(make_model(config).to(torch.bfloat16), batch)
    assert rough.dtype == torch.bfloat16
    assert (exact - rough.float()).square().mean().sqrt() < 0.05
