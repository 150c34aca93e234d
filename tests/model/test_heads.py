from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from megapt.config import ModelConfig
from megapt.data import HeadSpec
from megapt.model.heads import ClassHead, PairHead, TokenHead
from tests.model.builders import (
    CLASSES,
    MODERN,
    TOKENS,
    VANILLA,
    VOCABULARY,
    make_batch,
    make_model,
    random_example,
)

PAIR = HeadSpec("pair", "pair", classes=2)
DETECTION = HeadSpec("detection", "detection", classes=2)
BATCH = make_batch([random_example(9, "bidirectional"), random_example(7, "bidirectional", 1)])
STATES = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
PLACES = torch.tensor([9, 0, 3])


def test_a_tied_projection_is_the_word_embedding() -> None:
    model = make_model(ModelConfig(**MODERN))
    words, projection = model.trunk.embeddings.words.weight, model.heads["tokens"].projection.weight
    assert words is projection
    assert words.data_ptr() == projection.data_ptr()


def test_tied_weights_get_the_gradients_of_both_uses() -> None:
    """Unlike the word table alone, also rows of tokens that are not in the input move."""
    tied = make_model(ModelConfig(**MODERN))
    apart = make_model(ModelConfig(**{**MODERN, "tie_word_embeddings": False}))
    with torch.no_grad():
        apart.heads["tokens"].projection.weight.copy_(tied.trunk.embeddings.words.weight)
    batch = make_batch([random_example(12, "causal", targets=6)])
    for model in (tied, apart):
        model(batch).loss.backward()
    words, projection = (
        apart.trunk.embeddings.words.weight.grad,
        apart.heads["tokens"].projection.weight.grad,
    )
    assert words is not None
    assert projection is not None
    both = tied.trunk.embeddings.words.weight.grad
    torch.testing.assert_close(both, words + projection, atol=1e-5, rtol=1e-4)
    assert (words == 0).all(dim=1).any()
    assert not (projection == 0).all(dim=1).any()


def test_an_untied_projection_is_a_matrix_of_its_own() -> None:
    model = make_model(ModelConfig(**{**MODERN, "tie_word_embeddings": False}))
    assert model.heads["tokens"].projection.weight is not model.trunk.embeddings.words.weight
    count = sum(parameter.numel() for parameter in model.parameters())
    tied = sum(parameter.numel() for parameter in make_model(ModelConfig(**MODERN)).parameters())
    assert count - tied == VOCABULARY * 16


@pytest.mark.parametrize("style", [MODERN, VANILLA])
def test_logits_are_the_projection_of_the_states(style: dict[str, object]) -> None:
    model = make_model(ModelConfig(**style), [TOKENS, CLASSES])
    head = model.heads["tokens"]
    assert isinstance(head, TokenHead)
    expected = STATES[PLACES] @ model.trunk.embeddings.words.weight.T
    if head.projection.bias is not None:
        expected = expected + head.projection.bias
    torch.testing.assert_close(head.logits(STATES, BATCH, PLACES), expected)


@pytest.mark.parametrize("style", [MODERN, VANILLA])
@pytest.mark.parametrize("tied", [True, False])
def test_a_transform_is_dense_gelu_and_norm(style: dict[str, object], tied: bool) -> None:
    config = ModelConfig(**{**style, "token_head": "transform", "tie_word_embeddings": tied})
    head = make_model(config).heads["tokens"]
    assert isinstance(head, TokenHead)
    assert isinstance(head.transform, torch.nn.Sequential)
    dense, _, norm = head.transform
    inner = norm(functional.gelu(dense(STATES[PLACES])))
    torch.testing.assert_close(inner.square().mean(dim=-1), torch.ones(3), atol=1e-3, rtol=0)
    expected = functional.linear(inner, head.projection.weight, head.projection.bias)
    torch.testing.assert_close(head.logits(STATES, BATCH, PLACES), expected)


def test_the_detection_head_is_dense_gelu_and_projection() -> None:
    head = make_model(ModelConfig(**MODERN), [DETECTION]).heads["detection"]
    assert isinstance(head, ClassHead)
    inner = functional.gelu(STATES[PLACES] @ head.dense.weight.T + head.dense.bias)
    expected = inner @ head.projection.weight.T + head.projection.bias
    assert expected.shape == (3, 2)
    torch.testing.assert_close(head.logits(STATES, BATCH, PLACES), expected)


def test_the_sequence_head_is_dense_tanh_and_projection() -> None:
    head = make_model(ModelConfig(**MODERN), [CLASSES]).heads["class"]
    assert isinstance(head, ClassHead)
    inner = torch.tanh(STATES[PLACES] @ head.dense.weight.T + head.dense.bias)
    expected = inner @ head.projection.weight.T + head.projection.bias
    assert expected.shape == (3, 3)
    torch.testing.assert_close(head.logits(STATES, BATCH, PLACES), expected)


def pair_head() -> PairHead:
    head = make_model(ModelConfig(**MODERN), [PAIR]).heads["pair"]
    assert isinstance(head, PairHead)
    return head


def test_the_pair_head_compares_the_mean_states_of_the_segments() -> None:
    head, expected = pair_head(), []
    for place in (slice(9, 16), slice(0, 9)):
        rows, second = STATES[place], BATCH.segments[place] == 1
        u, v = head.dense(rows[~second].mean(dim=0)), head.dense(rows[second].mean(dim=0))
        features = torch.cat([u, v, (u - v).abs(), u * v])
        expected.append(features @ head.projection.weight.T + head.projection.bias)
    firsts = torch.tensor([9, 0])
    torch.testing.assert_close(head.logits(STATES, BATCH, firsts), torch.stack(expected))


def test_the_pair_head_survives_a_batch_without_examples() -> None:
    """A micro-batch of `nsp` may hold windows of single sentences alone."""
    empty = make_batch([])
    assert pair_head().logits(STATES[:1], empty, torch.zeros(1, dtype=torch.int64)).shape == (1, 2)


def test_the_pair_head_takes_a_missing_segment_for_zero() -> None:
    alone = make_batch([random_example(5, "bidirectional", prefix=5)])
    logits = pair_head().logits(STATES[:5], alone, torch.tensor([0]))
    assert torch.isfinite(logits).all()
