from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from megapt.config import ModelConfig
from megapt.data import Attention as Kind
from megapt.model.attention import Attention, plan_attention, prepare_attention
from megapt.model.attention.grouped import GroupedAttention, group_mask
from tests.model.builders import MODERN, make_batch, random_example

lengths = st.lists(st.integers(1, 10), max_size=8)
kinds = st.sampled_from(["causal", "bidirectional", "prefix"])


@given(lengths, kinds)
def test_the_masks_are_their_definition(lengths: list[int], kind: Kind) -> None:
    batch = make_batch([random_example(n, kind, n) for n in lengths])
    visible = torch.cat([batch.visible, torch.tensor([False])])
    nothing = len(batch.tokens)
    for group in batch.groups:
        mask = group_mask(group, visible)
        assert mask.shape == (len(group), 1, group.shape[1], group.shape[1])
        assert mask.any(dim=-1).all(), "no query may be left without a key"
        for example, places in enumerate(group.tolist()):
            for i, query in enumerate(places):
                for j, key in enumerate(places):
                    if query < nothing:
                        expected = key < nothing and (j <= i or bool(visible[key]))
                        assert mask[example, 0, i, j] == expected


@given(lengths, kinds)
def test_every_state_is_taken_back_from_where_it_was_gathered(
    lengths: list[int], kind: Kind
) -> None:
    batch = make_batch([random_example(n, kind, n) for n in lengths])
    backend = GroupedAttention(batch)
    assert backend.places[backend.inverse].tolist() == list(range(len(batch.tokens)))


def test_attention_is_the_published_formula() -> None:
    config = ModelConfig(**{**MODERN, "bias": True, "positions": "learned"})
    torch.manual_seed(0)
    layer, x = Attention(config), torch.randn(16, 16)
    batch = make_batch([random_example(9, "prefix"), random_example(7, "causal")])
    states = layer(x, plan_attention(batch, config, prepare_attention(batch)))
    places, examples = torch.arange(16), torch.tensor([0] * 9 + [1] * 7)
    before = (places[None] <= places[:, None]) | batch.visible[None]
    allowed = before & (examples[None] == examples[:, None])
    mixed = []
    for head in (x @ layer.qkv.weight.T + layer.qkv.bias).split(3 * 8, dim=-1):
        q, k, v = head.split(8, dim=-1)
        scores = q @ k.T / math.sqrt(8)
        mixed.append(scores.masked_fill(~allowed, -math.inf).softmax(dim=-1) @ v)
    expected = torch.cat(mixed, dim=-1) @ layer.output.weight.T + layer.output.bias
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
