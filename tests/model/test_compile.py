"""The blocks are compiled once, whatever the batches are, and compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from megapt.config import ModelConfig
from megapt.data import Attention, Batch, HeadSpec, Targets
from megapt.errors import ConfigError
from megapt.model import PretrainingModel
from megapt.model.compilation import check_compiler, compile_model
from megapt.model.trunk import Block
from tests.model.builders import MODERN, TOKENS, VOCABULARY, make_batch, random_example

KINDS: tuple[Attention, ...] = ("causal", "bidirectional", "prefix")
GUESS = HeadSpec("guess", "generator", scale=0.5)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace and differentiate as always, but run the operations of the graphs one by one.

    A compiler would take half a minute; a whole run has one in tests/training.
    """

    def trace(block: Block, **how: Any) -> None:
        nn.Module.compile(block, backend="aot_eager", **how)

    monkeypatch.setattr(Block, "compile", trace)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def varied_batches(count: int) -> Iterator[Batch]:
    """Batches of 1 to 8 examples of 3 to 60 tokens of every kind, in 1 to 5 groups."""
    rng = np.random.default_rng(0)
    for number in range(count):
        lengths = rng.integers(3, 60, size=rng.integers(1, 9)).tolist()
        kind = KINDS[number % 3]
        examples = [random_example(n, kind, number, targets=n // 2) for n in lengths]
        for example in examples:
            asked = example.targets["tokens"]
            draws = rng.random(len(asked.labels))
            guess = Targets(asked.positions, asked.labels, draws=draws)
            example.targets["guess"] = guess  # type: ignore[index]
        yield make_batch(examples, [TOKENS, GUESS])


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_no_batch_compiles_anew(recompute: Any) -> None:
    """Four parts of a block and the losses, of trunk and generator, in training and validation."""
    config = ModelConfig(**{**MODERN, "num_layers": 4, "num_heads": 4})
    plain, model = (
        PretrainingModel(
            config, [TOKENS, GUESS], vocabulary=VOCABULARY, max_positions=64, recompute=kind
        )
        for kind in ("none", recompute)
    )
    compile_model(model)
    graphs, groups = [], set()
    for batch in varied_batches(20):
        losses = []
        for each in (plain, model):
            loss = each(batch).loss
            loss.backward()
            losses.append(loss)
        torch.testing.assert_close(*losses)
        for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
            mine.grad = theirs.grad = None
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(batch).loss, losses[1])
            model.train()
        groups.add(len(batch.groups))
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(groups) > 3
    assert set(graphs) == {4 * 2 * 2 + 2 * 2}


def test_weights_keep_their_names() -> None:
    model = PretrainingModel(ModelConfig(**MODERN), [TOKENS], vocabulary=9, max_positions=64)
    names = list(model.state_dict())
    compile_model(model)
    assert list(model.state_dict()) == names


def test_a_machine_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"^training\.compile: .* g\+\+ .* CXX") as error:
        check_compiler(CPU)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="gcc or clang"):
        check_compiler(torch.device("cuda"))


def test_a_compiler_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    check_compiler(CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        check_compiler(CPU)
