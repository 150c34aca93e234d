"""A document in a batch is as if it were alone, however attention is computed and laid out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megapt.config import ModelConfig
from megapt.data import Attention, Batch, Example
from megapt.data.packing import Rows, first_fit
from megapt.model import PretrainingModel
from tests.model.builders import STYLES, make_batch, make_model, random_example, states_of

CUDA = torch.cuda.is_available()
CPU, FASTEST = torch.device("cpu"), torch.device("cuda" if CUDA else "cpu")
KINDS: tuple[Attention, ...] = ("causal", "bidirectional", "prefix")
LENGTHS = (5, 9, 1, 7, 12)
# The last row stays empty: no place of it may hold anything but a number.
PACKED = Rows(length=16, count=4, open=2)


@dataclass(frozen=True)
class Setup:
    """A backend, and the batches and numbers that it computes with here."""

    backend: str
    rows: Rows | None
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def tolerance(self) -> dict[str, float]:
        if self.dtype == torch.bfloat16:
            return {"atol": 0.2, "rtol": 0.1}
        # Compiled kernels may round products of float32 to TF32.
        return {"atol": 1e-4 if self.device == CPU else 1e-2, "rtol": 1e-3}

    @property
    def trains(self) -> bool:
        """FlexAttention has no backward pass on a CPU."""
        return self.backend != "flex" or CUDA

    def model(self, style: str) -> PretrainingModel:
        # FlexAttention wants heads of 16 and more on CUDA.
        config = ModelConfig(**{**STYLES[style], "hidden_size": 32})
        return make_model(config, attention=self.backend).to(self.device, self.dtype)

    def batch(self, examples: list[Example], pad: int = 0) -> Batch:
        return make_batch(examples, rows=self.rows, pad=pad).to(self.device)


def find_setups() -> list[Setup]:
    found = [Setup("grouped", None), Setup("grouped", PACKED), Setup("rows", PACKED)]
    found += [Setup("flex", rows, FASTEST) for rows in (None, PACKED)]
    if CUDA:
        found += [Setup("varlen", rows, FASTEST, torch.bfloat16) for rows in (None, PACKED)]
    return found


def named(setup: Setup) -> str:
    return f"{setup.backend}-{'rows' if setup.rows else 'flat'}"


SETUPS = find_setups()
setups = pytest.mark.parametrize("setup", SETUPS, ids=named)
trainable = pytest.mark.parametrize("setup", [s for s in SETUPS if s.trains], ids=named)
kinds = pytest.mark.parametrize("kind", KINDS)
styles = pytest.mark.parametrize("style", sorted(STYLES))


def make_examples(setup: Setup, kind: Attention) -> list[Example]:
    if setup.backend == "varlen" and kind == "prefix":
        pytest.skip("varlen refuses prefixes")
    return [random_example(n, kind, seed=n, targets=n // 2) for n in LENGTHS]


def places_of(batch: Batch, example: Example) -> slice:
    """Where the example lies; those of these tests differ in length."""
    tokens = torch.from_numpy(example.tokens).to(batch.tokens.device)
    starts = batch.starts.tolist()
    found = [
        start
        for start in starts[:-1]
        if torch.equal(batch.tokens[start : start + len(example)], tokens)
    ]
    assert len(found) == 1
    return slice(found[0], found[0] + len(example))


def gradients(model: PretrainingModel, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.trunk.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n: g for n, g in zip(names, found, strict=True) if g is not None}


@styles
@kinds
@setups
def test_states_are_those_of_the_document_alone(setup: Setup, kind: Attention, style: str) -> None:
    examples = make_examples(setup, kind)
    batch = setup.batch(examples)
    states = states_of(setup.model(style), batch)
    reference = replace(setup, backend="grouped", rows=None)
    for example in examples:
        alone = states_of(reference.model(style), reference.batch([example]))
        torch.testing.assert_close(states[places_of(batch, example)], alone, **setup.tolerance)


@styles
@kinds
@trainable
def test_gradients_are_those_of_the_document_alone(
    setup: Setup, kind: Attention, style: str
) -> None:
    """Of every parameter of the trunk, the word embeddings among them."""
    examples = make_examples(setup, kind)
    model, batch = setup.model(style), setup.batch(examples)
    states = model.trunk(batch)
    reference = replace(setup, backend="grouped", rows=None)
    other = reference.model(style)
    for example in examples:
        mine, alone = states[places_of(batch, example)], other.trunk(reference.batch([example]))
        weights = torch.randn(mine.shape, generator=torch.Generator().manual_seed(len(example)))
        weights = weights.to(mine)
        found = gradients(model, (mine * weights).sum())
        expected = gradients(other, (alone * weights).sum())
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, **setup.tolerance, msg=name)


@styles
@kinds
@trainable
def test_no_gradient_reaches_another_document_or_a_filler(
    setup: Setup, kind: Attention, style: str
) -> None:
    examples = make_examples(setup, kind)
    model, batch = setup.model(style), setup.batch(examples)
    seen: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    model.trunk.embeddings.register_forward_hook(keep)
    mine = places_of(batch, examples[1])
    model.trunk(batch)[mine].square().sum().backward()
    gradient = seen[0].grad
    assert gradient is not None
    assert gradient[mine].abs().sum() > 0
    assert not gradient[: mine.start].any()
    assert not gradient[mine.stop :].any()


@kinds
@setups
def test_the_tokens_of_other_documents_change_nothing_at_all(setup: Setup, kind: Attention) -> None:
    examples = make_examples(setup, kind)
    model, batch = setup.model("pre"), setup.batch(examples)
    mine = places_of(batch, examples[1])
    others = (batch.tokens + 1) % 50
    others[mine] = batch.tokens[mine]
    before, after = states_of(model, batch), states_of(model, replace(batch, tokens=others))
    assert torch.equal(before[mine], after[mine])
    assert not torch.equal(before, after)


@kinds
@trainable
def test_fillers_influence_nothing(setup: Setup, kind: Attention) -> None:
    """Whatever the pad token is, losses and gradients are the same, and its row gets none."""
    examples = [replace(e, tokens=e.tokens % 40 + 1) for e in make_examples(setup, kind)]
    model, results = setup.model("pre"), []
    for pad in (0, 45):
        batch = setup.batch(examples, pad=pad)
        output = model(batch)
        found = gradients(model, output.loss)
        assert bool((batch.tokens == pad).any()) == (setup.rows is not None)
        results.append((output.loss, output.parts["tokens"].correct, found))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    for name, gradient in results[0][2].items():
        assert torch.equal(gradient, results[1][2][name]), name
    frozen = setup.model("pre").trunk
    frozen(setup.batch(examples))[places_of(batch, examples[0])].sum().backward()
    words = frozen.embeddings.words.weight.grad
    assert words is not None
    assert not words[0].any()


@kinds
@setups
def test_bfloat16_states_and_gradients_are_finite(setup: Setup, kind: Attention) -> None:
    """Also of fillers, and of a row that holds nothing else."""
    model = setup.model("pre").to(torch.bfloat16)
    batch = setup.batch(make_examples(setup, kind))
    assert torch.isfinite(states_of(model, batch)).all()
    if setup.trains:
        states = model.trunk(batch)
        assert states.dtype == torch.bfloat16
        found = gradients(model, states.float().square().sum())
        assert all(torch.isfinite(gradient).all() for gradient in found.values())


@st.composite
def random_batches(draw: st.DrawFn) -> list[Example]:
    """Up to 8 examples, causal, bidirectional and prefix ones in one batch."""
    return [
        random_example(draw(st.integers(1, 16)), draw(st.sampled_from(KINDS)), seed, targets=1)
        for seed in range(draw(st.integers(1, 8)))
    ]


@settings(max_examples=25)
@given(random_batches(), st.integers(1, 4), st.sampled_from(sorted(STYLES)))
def test_all_agree_on_random_packings(examples: list[Example], open_rows: int, style: str) -> None:
    # As many rows as examples: FlexAttention traces every new shape again.
    rows = Rows(length=16, count=8, open=open_rows)
    reference = Setup("grouped", None)
    alone = reference.model(style)
    batch = make_batch(examples, rows=rows)
    expected = torch.zeros(len(batch.tokens), 32)
    loss = torch.zeros(())
    numbers, starts = first_fit(map(len, examples), rows.length, rows.open)
    for example, first in zip(examples, (rows.length * numbers + starts).tolist(), strict=True):
        lone = make_batch([example])
        expected[first : first + len(example)] = states_of(alone, lone)
        loss = loss + alone(lone).loss
    real = expected.any(dim=-1)
    assert int(real.sum()) == batch.counts.positions
    for backend in ("grouped", "rows", "flex"):
        setup = replace(reference, backend=backend, rows=rows)
        model = setup.model(style)
        states = states_of(model, batch)
        torch.testing.assert_close(states[real], expected[real], atol=1e-4, rtol=1e-3)
        assert torch.isfinite(states).all()
        if backend != "flex":
            found = gradients(model, model(batch).loss)
            for name, gradient in gradients(alone, loss).items():
                torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-3, msg=name)
