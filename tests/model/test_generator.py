"""ELECTRA's generator: what it is, what it writes, and what is then asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from megapt.config import ModelConfig
from megapt.data import Batch, Example, HeadSpec, Targets
from megapt.data import batch as batches
from megapt.model import PretrainingModel
from megapt.model.attention import GroupedAttention
from megapt.model.generator import Generator, generator_config
from tests.chance import assert_fits
from tests.model.builders import (
    MODERN,
    STYLES,
    TOKENS,
    VOCABULARY,
    make_batch,
    make_model,
    random_example,
)

MASK = 3
GENERATOR = HeadSpec("generator", "generator", scale=0.5)
DETECTION = HeadSpec("detection", "detection", classes=2)
HEADS = [GENERATOR, DETECTION]
styles = pytest.mark.parametrize("style", sorted(STYLES))


def masked_example(length: int, seed: int, share: float = 0.5) -> Example:
    """A text some of whose tokens are masked; all of them are asked for."""
    rng = np.random.default_rng([seed, length])
    text = random_example(length, "bidirectional", seed)
    places = np.sort(rng.permutation(length)[: max(round(share * length), 1)])
    tokens = np.array(text.tokens)
    labels = tokens[places]
    tokens[places] = MASK
    targets = {
        "generator": Targets(places, labels, draws=rng.random(len(places))),
        "detection": Targets(np.arange(length), np.zeros(length, dtype=np.int64)),
    }
    return replace(text, tokens=tokens, targets=targets)


def read_by_trunk(model: PretrainingModel, batch: Batch) -> Tensor:
    """The tokens whose states the trunk computes."""
    seen: list[Batch] = []
    hook = model.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(batch)
    hook.remove()
    (read,) = seen
    return read.tokens


@pytest.mark.parametrize(
    ("model", "scale", "expected"),
    [
        # ELECTRA's own: small, base and large (Clark et al. 2020, table 6).
        ((256, 4, 1024), 1 / 4, (64, 1, 256)),
        ((768, 12, 3072), 1 / 3, (256, 4, 1024)),
        ((1024, 16, 4096), 1 / 4, (256, 4, 1024)),
        # One head, narrower than those of the model.
        ((64, 2, 96), 1 / 4, (16, 1, 24)),
        ((64, 2, 96), 1.0, (64, 2, 96)),
        ((6, 3, 6), 0.01, (2, 1, 2)),
    ],
)
def test_the_size_of_a_generator(
    model: tuple[int, int, int], scale: float, expected: tuple[int, int, int]
) -> None:
    hidden, heads, feedforward = model
    config = ModelConfig(
        num_layers=3, hidden_size=hidden, num_heads=heads, intermediate_size=feedforward
    )
    small = generator_config(config, scale)
    assert (small.hidden_size, small.num_heads, small.intermediate_size) == expected
    assert small.num_layers == 3


@given(st.integers(1, 16), st.integers(1, 64), st.floats(0.001, 1.0))
def test_every_size_is_a_valid_model(heads: int, pairs: int, scale: float) -> None:
    config = ModelConfig(
        num_layers=1, hidden_size=2 * pairs * heads, num_heads=heads, intermediate_size=7
    )
    small = generator_config(config, scale)
    assert ModelConfig(**small.model_dump()) == small
    assert small.hidden_size <= config.hidden_size


@styles
def test_its_loss_is_that_of_its_logits(style: str) -> None:
    model = make_model(ModelConfig(**STYLES[style]), HEADS)
    batch = make_batch([masked_example(9, 1), masked_example(12, 2)], heads=HEADS)
    logits, labels = model.predict(batch, "generator"), batch.targets["generator"].labels
    assert logits.shape == (len(labels), VOCABULARY)
    part = model(batch).parts["generator"]
    expected = functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(part.nll, expected, atol=1e-4, rtol=1e-5)
    assert part.correct == (logits.argmax(dim=-1) == labels).sum()


@styles
def test_it_reads_the_masked_text_of_its_own_example(style: str) -> None:
    model = make_model(ModelConfig(**STYLES[style]), HEADS)
    examples = [masked_example(9, 1), masked_example(12, 2), masked_example(3, 3)]
    together = model.predict(make_batch(examples, heads=HEADS), "generator")
    alone = [model.predict(make_batch([e], heads=HEADS), "generator") for e in examples]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_the_trunk_reads_its_samples_at_the_masks() -> None:
    model = make_model(ModelConfig(**MODERN), HEADS)
    batch = make_batch([masked_example(20, 1), masked_example(12, 2)], heads=HEADS)
    asked = batch.targets["generator"]
    assert asked.draws is not None
    reached = model.predict(batch, "generator").softmax(dim=-1).cumsum(dim=-1)
    samples = (reached <= asked.draws[:, None]).sum(dim=-1)
    expected = batch.tokens.clone()
    expected[asked.places] = samples
    assert torch.equal(read_by_trunk(model, batch), expected)
    assert (batch.tokens[asked.places] == MASK).all(), "the batch itself stays as it was"


def test_what_attention_asks_of_a_batch_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For generator, trunk and heads, after the batch has moved, and where tokens are replaced."""
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        made = getattr(owner, name)

        def called(*args: Any) -> Any:
            calls[name] += 1
            return made(*args)

        monkeypatch.setattr(owner, name, called)

    count(batches, "group_examples")
    count(GroupedAttention, "__init__")
    heads = [*HEADS, HeadSpec("pair", "pair", classes=2), TOKENS]
    model = make_model(ModelConfig(**MODERN), heads)
    examples = [masked_example(9, 1), masked_example(12, 2), random_example(7, "prefix", targets=2)]
    batch = make_batch(examples, heads=heads).to(torch.device("cpu"))
    model(replace(batch, tokens=batch.tokens.clone())).loss.backward()
    assert calls == {"group_examples": 1, "__init__": 1}
    for head in ("generator", "detection", "tokens"):
        calls.clear()
        model.predict(batch, head)
        assert calls == {"__init__": 1}, head


def test_samples_do_not_depend_on_what_else_is_in_the_batch() -> None:
    """So neither on micro-batches, nor on ranks."""
    model = make_model(ModelConfig(**MODERN), HEADS)
    examples = [masked_example(n, n) for n in (20, 7, 31, 12)]
    together = read_by_trunk(model, make_batch(examples, heads=HEADS))
    alone = [read_by_trunk(model, make_batch([e], heads=HEADS)) for e in examples]
    assert torch.equal(together, torch.cat(alone))


def test_samples_are_distributed_as_its_softmax() -> None:
    model, rng = make_model(ModelConfig(**MODERN), HEADS), np.random.default_rng(0)
    example = masked_example(10, 0, share=0.3)
    asked = example.targets["generator"]
    examples = [
        replace(
            example,
            targets={**example.targets, "generator": replace(asked, draws=rng.random(3))},
        )
        for _ in range(6000)
    ]
    batch = make_batch(examples, heads=HEADS)
    shares = model.predict(batch, "generator")[:3].softmax(dim=-1)
    written = read_by_trunk(model, batch)[batch.targets["generator"].places].view(-1, 3)
    for i in range(3):
        counts = np.bincount(written[:, i].numpy(), minlength=VOCABULARY)
        assert_fits(counts, shares[i].detach().numpy())


@styles
def test_detection_is_asked_what_was_replaced(style: str) -> None:
    model = make_model(ModelConfig(**STYLES[style]), HEADS)
    examples = [masked_example(20, seed) for seed in range(12)]
    batch = make_batch(examples, heads=HEADS)
    originals = batch.tokens.clone()
    asked = batch.targets["generator"]
    originals[asked.places] = asked.labels
    labels = (read_by_trunk(model, batch) != originals).to(torch.int64)
    assert labels[asked.places].min() == 0, "some sample is the token that was there"
    assert labels.sum() > 0
    logits = model.predict(batch, "detection")
    part = model(batch).parts["detection"]
    expected = functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(part.nll, expected, atol=1e-4, rtol=1e-5)
    assert part.correct == (logits.argmax(dim=-1) == labels).sum()


def test_without_its_targets_the_text_stays() -> None:
    """An example of another objective in a mixture: its first token too."""
    heads = [*HEADS, TOKENS]
    model = make_model(ModelConfig(**MODERN), heads)
    other = random_example(9, "bidirectional", targets=3)
    batch = make_batch([other], heads=heads)
    assert torch.equal(read_by_trunk(model, batch), batch.tokens)
    output = model(batch)
    plain = make_model(ModelConfig(**MODERN))(make_batch([other]))
    assert output.loss == plain.loss
    assert output.parts["generator"] == output.parts["detection"] == (0, 0)
    output.loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing, "every rank must reduce every gradient"


def gradients_of(model: PretrainingModel, batch: Batch, **factors: float) -> dict[str, Tensor]:
    loss = model(batch, factors).loss
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@styles
@pytest.mark.parametrize("tied", [True, False])
def test_detection_teaches_the_generator_nothing(style: str, tied: bool) -> None:
    """But what both share: the embeddings."""
    config = ModelConfig(**{**STYLES[style], "tie_word_embeddings": tied})
    model = make_model(config, HEADS)
    batch = make_batch([masked_example(20, 1), masked_example(12, 2)], heads=HEADS)
    of_generator = gradients_of(model, batch, generator=1.0, detection=0.0)
    of_detection = gradients_of(model, batch, generator=0.0, detection=1.0)
    for name, gradient in of_generator.items():
        shared = name.startswith(("trunk.embedding_norm", "trunk.embeddings"))
        assert gradient.any() == (shared or name.startswith("generators")), name
        assert of_detection[name].any() == (not name.startswith("generators")), name


def test_its_output_is_the_word_embedding_if_the_model_is_tied() -> None:
    for tied in (True, False):
        model = make_model(ModelConfig(**{**MODERN, "tie_word_embeddings": tied}), HEADS)
        generator = model.generators["generator"]
        assert isinstance(generator, Generator)
        words = model.trunk.embeddings.words.weight
        assert (generator.head.projection.weight is words) == tied


def test_a_model_starts_the_same_with_a_generator_and_without() -> None:
    config = ModelConfig(**MODERN)
    alone, both = make_model(config, [DETECTION]), make_model(config, HEADS)
    expected = dict(alone.named_parameters())
    found = dict(both.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@styles
def test_generator_and_detection_learn(style: str) -> None:
    """The text by heartbeat; then nothing is replaced, and that is known."""
    model = make_model(ModelConfig(**STYLES[style]), HEADS)
    batch = make_batch([masked_example(16, 1), masked_example(12, 2)], heads=HEADS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model(batch).loss.backward()
        optimizer.step()
    parts = model(batch).parts
    assert parts["generator"].correct == len(batch.targets["generator"])
    assert parts["detection"].correct == len(batch.targets["detection"])
    assert parts["generator"].nll / len(batch.targets["generator"]) < 0.1


def test_of_a_trained_mixture_something_else_may_be_asked() -> None:
    """Then nothing is generated: the text is read as it stands."""
    heads = [replace(spec, name=f"e/{spec.name}", module=spec.name) for spec in HEADS]
    model = make_model(ModelConfig(**STYLES["pre"]), [*heads, TOKENS])
    example = random_example(9, "causal", 3, targets=4)
    batch = make_batch([example], heads=[TOKENS])
    states = model.trunk(batch)
    places = batch.targets["tokens"].places
    expected = model.heads["tokens"].logits(states, batch, places)
    assert torch.equal(model.predict(batch, "tokens"), expected.float())
