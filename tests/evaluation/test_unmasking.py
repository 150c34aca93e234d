"""Filling masks in rounds, with models whose answers are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megapt.data import Batch
from megapt.errors import ConfigError
from megapt.evaluation import LoadedRun
from megapt.evaluation.unmasking import unmask
from tests.objectives.builders import build
from tests.windows import VOCABULARY

V = VOCABULARY
M = V.mask


class Table:
    """A model with a fixed answer, and a fixed sureness of it, at every place of a text."""

    def __init__(self, answers: list[int], sureness: list[float]) -> None:
        self.logits = torch.zeros(len(answers), V.size)
        for place, (answer, logit) in enumerate(zip(answers, sureness, strict=True)):
            self.logits[place, answer] = logit
        self.seen: list[list[int]] = []

    def predict(self, batch: Batch, head: str) -> Tensor:
        self.seen.append(batch.tokens[1:-1].tolist())
        return self.logits[batch.targets[head].places - 1].clone()


class Counting:
    """A model that counts on from the token before, and knows nothing behind a mask but 100."""

    def predict(self, batch: Batch, head: str) -> Tensor:
        places = batch.targets[head].places
        before = batch.tokens[places - 1]
        known = before != M
        logits = torch.zeros(len(places), V.size)
        rows = torch.arange(len(places))
        logits[rows, torch.where(known, before + 1, torch.tensor(100))] = torch.where(
            known, 10.0, 1.0
        )
        return logits


def run_of(model: Table | Counting, objective: str = "diffusion", window: int = 64) -> LoadedRun:
    parts: dict[str, Any] = {
        "config": SimpleNamespace(data=SimpleNamespace(window=window)),
        "model": model,
        "tokenizer": SimpleNamespace(vocabulary=V),
    }
    device = torch.device("cpu")
    return LoadedRun(Path("run"), objective=build(objective), step=1, device=device, **parts)


def test_the_surest_token_is_kept_in_each_round() -> None:
    model = Table([40, 41, 42, 43, 44], [1.0, 9.0, 3.0, 5.0, 7.0])
    filled = unmask(run_of(model), np.array([M, 50, M, M, M]))
    assert filled.tolist() == [40, 50, 42, 43, 44]
    assert model.seen == [
        [M, 50, M, M, M],
        [M, 50, M, M, 44],
        [M, 50, M, 43, 44],
        [M, 50, 42, 43, 44],
    ]


@pytest.mark.parametrize(
    ("rounds", "left"),
    [
        (1, [5]),
        (2, [5, 2]),
        (3, [5, 3, 1]),
        (4, [5, 3, 2, 1]),
        (5, [5, 4, 3, 2, 1]),
        (9, [5, 4, 3, 2, 1]),
        (None, [5, 4, 3, 2, 1]),
    ],
)
def test_every_round_fills_its_share(rounds: int | None, left: list[int]) -> None:
    model = Table([40, 41, 42, 43, 44], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert unmask(run_of(model), np.full(5, M), rounds).tolist() == [40, 41, 42, 43, 44]
    assert [tokens.count(M) for tokens in model.seen] == left


def test_what_was_filled_in_is_context_for_the_rest() -> None:
    ids = np.array([50, M, M, M, M])
    assert unmask(run_of(Counting()), ids).tolist() == [50, 51, 52, 53, 54]
    assert unmask(run_of(Counting()), ids, rounds=1).tolist() == [50, 51, 100, 100, 100]


def test_of_equals_the_left_is_first() -> None:
    model = Table([40, 41, 42], [2.0, 2.0, 2.0])
    unmask(run_of(model), np.full(3, M))
    assert model.seen == [[M, M, M], [40, M, M], [40, 41, M]]


def test_special_tokens_are_never_filled_in_nor_counted_as_sureness() -> None:
    """Beside [EOS] the 40 is hardly likely; among ordinary tokens it is the surest of all."""
    model = Table([V.eos, 41], [20.0, 4.0])
    model.logits[0, 40] = 8.0
    assert unmask(run_of(model), np.full(2, M)).tolist() == [40, 41]
    assert model.seen == [[M, M], [40, M]]


@given(
    st.lists(st.sampled_from([M, 50, 51]), min_size=1, max_size=12),
    st.one_of(st.none(), st.integers(1, 15)),
)
def test_masks_alone_are_replaced(tokens: list[int], rounds: int | None) -> None:
    model = Table([60 + i for i in range(len(tokens))], [1.0 + i % 3 for i in range(len(tokens))])
    ids = np.array(tokens, dtype=np.uint16)
    filled = unmask(run_of(model), ids, rounds)
    expected = [60 + i if token == M else token for i, token in enumerate(tokens)]
    assert filled.tolist() == expected
    assert filled.dtype == np.uint16
    assert ids.tolist() == tokens
    assert len(model.seen) == min(tokens.count(M), rounds or len(tokens))


@pytest.mark.parametrize("rounds", [0, -1])
def test_less_than_one_round_is_refused(rounds: int) -> None:
    with pytest.raises(ConfigError, match=f"{rounds} rounds"):
        unmask(run_of(Counting()), np.array([50, M]), rounds)


def test_an_objective_without_masked_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run: was trained with 'arlm'") as raised:
        unmask(run_of(Counting(), "arlm"), np.array([50, M]))
    assert "\n" not in str(raised.value)


def test_a_text_longer_than_the_window_is_refused() -> None:
    unmask(run_of(Counting(), window=3), np.array([50, 51, M]))
    with pytest.raises(ConfigError, match="4 tokens; this run reads 3"):
        unmask(run_of(Counting(), window=3), np.array([50, 51, 52, M]))
