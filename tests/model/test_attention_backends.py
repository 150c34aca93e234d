"""What the backends refuse, and what they hand to the kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import varlen
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.attention.varlen import varlen_attn

from megapt.config import ModelConfig
from megapt.data import Attention
from megapt.data.packing import Rows
from megapt.errors import ConfigError
from megapt.model.attention.flex import BLOCK, block_mask
from tests.model.builders import MODERN, make_batch, make_model, random_example, states_of

CONFIG = ModelConfig(**MODERN)
META = torch.device("meta")


def one_line(error: pytest.ExceptionInfo[ConfigError], *parts: str) -> bool:
    text = str(error.value)
    return "\n" not in text and all(part in text for part in parts)


def test_rows_wants_a_batch_in_rows() -> None:
    model = make_model(CONFIG, attention="rows")
    with pytest.raises(ConfigError) as error:
        model.trunk(make_batch([random_example(5, "causal")]))
    assert one_line(error, "training.attention: 'rows'", "training.row_length")


def test_varlen_wants_cuda() -> None:
    model = make_model(CONFIG, attention="varlen")
    with pytest.raises(ConfigError) as error:
        model.trunk(make_batch([random_example(5, "causal")]))
    assert one_line(error, "'varlen' runs on CUDA", "'grouped'")


def varlen_on_meta(
    kinds: list[Attention], dtype: torch.dtype, rows: Rows | None = None
) -> torch.Tensor:
    """Run torch's own checks of the kernels' arguments, and the shapes, without a GPU."""
    model = make_model(CONFIG, attention="varlen").to(META, dtype)
    batch = make_batch([random_example(n + 5, kind) for n, kind in enumerate(kinds)], rows=rows)
    states: torch.Tensor = model.trunk(batch.to(META))
    states.sum().backward()
    assert all(p.grad is not None for p in model.trunk.parameters())
    return states


@pytest.mark.parametrize(("rows", "longest"), [(None, 6), (Rows(16, 2, 1), 16)])
@pytest.mark.parametrize(("kind", "window"), [("causal", (-1, 0)), ("bidirectional", (-1, -1))])
def test_varlen_hands_the_kernels_what_they_take(
    monkeypatch: pytest.MonkeyPatch,
    kind: Attention,
    window: tuple[int, int],
    rows: Rows | None,
    longest: int,
) -> None:
    """With fillers too: they are causal or bidirectional as the examples are."""
    seen = []

    def watched(*tensors: Any, **options: Any) -> Any:
        seen.append((*tensors[3:], options))
        return varlen_attn(*tensors, **options)

    monkeypatch.setattr(varlen, "varlen_attn", watched)
    states = varlen_on_meta([kind, kind], torch.bfloat16, rows)
    assert states.shape == (32 if rows else 11, 16)
    assert states.dtype == torch.bfloat16
    assert len(seen) == CONFIG.num_layers
    for queries, keys, most_queries, most_keys, options in seen:
        assert queries is keys
        assert (queries.dtype, len(queries)) == (torch.int32, 5 if rows else 3)
        assert most_queries == most_keys == longest
        assert options == {"window_size": window}


@pytest.mark.parametrize("kinds", [["prefix"], ["causal", "bidirectional"]])
def test_varlen_refuses_masks_that_its_kernels_do_not_have(kinds: list[Attention]) -> None:
    with pytest.raises(ConfigError) as error:
        varlen_on_meta(kinds, torch.bfloat16)
    assert one_line(error, "'varlen'", "prefix", "'grouped', 'rows' or 'flex'")


def test_varlen_refuses_float32() -> None:
    with pytest.raises(ConfigError) as error:
        varlen_on_meta(["causal"], torch.float32)
    assert one_line(error, "training.precision: bf16")


def test_flex_does_not_train_on_a_cpu() -> None:
    model = make_model(CONFIG, attention="flex")
    batch = make_batch([random_example(5, "causal")])
    assert torch.isfinite(states_of(model, batch)).all()
    with pytest.raises(ConfigError) as error:
        model.trunk(batch)
    assert one_line(error, "'flex' cannot train on a CPU", "'grouped' or 'rows'")


@pytest.mark.parametrize("backend", ["flex", "varlen"])
def test_dropout_is_refused_where_weights_cannot_be_dropped(backend: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_model(ModelConfig(**{**MODERN, "dropout": 0.1}), attention=backend)
    assert one_line(error, "model.dropout: 0.1", backend, "'grouped' or 'rows'")


@pytest.mark.parametrize("backend", ["grouped", "rows"])
def test_attention_weights_are_dropped_in_training_alone(backend: str) -> None:
    config = ModelConfig(**{**MODERN, "dropout": 0.3})
    layer = make_model(config, attention=backend).trunk
    layer.dropout.p = 0.0
    for block in layer.blocks:
        block.dropout.p = 0.0
    batch = make_batch([random_example(16, "causal")], rows=Rows(16, 1, 1))
    with torch.no_grad():
        assert torch.equal(layer(batch), layer(batch))
        layer.train()
        assert not torch.equal(layer(batch), layer(batch))


def test_weights_do_not_depend_on_the_backend() -> None:
    weights = [
        make_model(CONFIG, attention=backend).state_dict()
        for backend in ("grouped", "rows", "flex", "varlen")
    ]
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert all(torch.equal(other[name], tensor) for name, tensor in weights[0].items())


@st.composite
def masked_rows(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Example ids and visible keys of two rows: short examples and such of several blocks."""
    length = draw(st.integers(1, 5 * BLOCK))
    rows = []
    for _ in range(2):
        sizes = draw(st.lists(st.sampled_from([1, 7, 100, 128, 129, 300]), max_size=6))
        ids = torch.repeat_interleave(torch.tensor([*sizes, length]))[:length]
        cuts = torch.tensor([draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in range(len(sizes) + 1)])
        offsets = torch.arange(length) - torch.searchsorted(ids, ids)
        rows.append((ids, offsets < cuts[ids] * ids.bincount()[ids]))
    ids, visible = (torch.stack(parts) for parts in zip(*rows, strict=True))
    ids[1] += ids[0, -1] + 1
    return ids, visible


def listed(counts: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The blocks of keys that each block of queries has, bool [rows, blocks, blocks]."""
    found = torch.zeros(indices.shape, dtype=torch.bool)
    first = torch.arange(indices.shape[-1]) < counts[..., None]
    return found.scatter(-1, indices.long(), first)[:, 0]


@settings(max_examples=40)
@given(masked_rows())
def test_blocks_hold_all_that_the_mask_allows(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    """FlexAttention never looks at a block that is not listed, nor at the mask of a full one."""
    ids, visible = rows
    n = ids.shape[1]
    mine = block_mask(ids, visible)
    before = torch.ones(n, n, dtype=torch.bool).tril()
    allowed = (ids[:, :, None] == ids[:, None, :]) & (before | visible[:, None, :])
    exact = create_block_mask(mine.mask_mod, 2, None, n, n, device="cpu")
    at = torch.arange(n)
    assert torch.equal(mine.mask_mod(torch.arange(2)[:, None, None], 0, at[:, None], at), allowed)
    assert mine.shape == exact.shape
    assert mine.full_kv_num_blocks is not None
    assert mine.full_kv_indices is not None
    partial = listed(mine.kv_num_blocks, mine.kv_indices)
    full = listed(mine.full_kv_num_blocks, mine.full_kv_indices)
    needed = listed(exact.kv_num_blocks, exact.kv_indices)
    assert exact.full_kv_num_blocks is not None
    assert exact.full_kv_indices is not None
    assert not (partial & full).any()
    assert torch.equal(full, listed(exact.full_kv_num_blocks, exact.full_kv_indices))
    assert not (needed & ~partial).any()
    if visible.all() or not visible.any():
        assert torch.equal(partial, needed), "only a prefix may list a block in vain"
