"""One loss from the sums of every head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megapt.data import HeadSpec
from megapt.training.losses import Scores, head_counts, weighted_loss
from tests.training.runs import ALONE

HEADS = (HeadSpec("tokens", "token"), HeadSpec("class", "sequence", 2, weight=0.5))


def sums(tokens: float, classes: float, right: float = 0.0) -> dict[str, Any]:
    return {
        "tokens": (torch.tensor(tokens), torch.tensor(right)),
        "class": (torch.tensor(classes), torch.tensor(right)),
    }


def batch(tokens: int, classes: int) -> Any:
    none = torch.zeros(0)
    labels = {"tokens": torch.zeros(tokens), "class": torch.zeros(classes)}
    return SimpleNamespace(targets={head: (none, found) for head, found in labels.items()})


def test_every_head_is_divided_by_its_own_targets_in_the_whole_step() -> None:
    assert float(weighted_loss(sums(6.0, 8.0), HEADS, [3.0, 4.0])) == 6 / 3 + 0.5 * 8 / 4


def test_a_head_without_targets_in_the_step_adds_nothing() -> None:
    assert float(weighted_loss(sums(6.0, 0.0), HEADS, [3.0, 0.0])) == 2.0


def test_counts_are_summed_over_batches_head_by_head() -> None:
    assert head_counts([batch(3, 1), batch(4, 0)], HEADS) == [7, 1]


def test_scores_weigh_targets_not_batches() -> None:
    scores = Scores(HEADS)
    scores.add(sums(6.0, 2.0, right=1.0), batch(3, 1))
    scores.add(sums(2.0, 0.0, right=0.0), batch(1, 0))
    assert scores.reduce(ALONE) == pytest.approx(
        {
            "loss": 8 / 4 + 0.5 * 2,
            "loss/tokens": 2.0,
            "accuracy/tokens": 0.25,
            "loss/class": 2.0,
            "accuracy/class": 1.0,
        }
    )


def test_a_head_that_was_never_asked_has_no_scores() -> None:
    scores = Scores(HEADS)
    scores.add(sums(6.0, 0.0), batch(3, 0))
    assert scores.reduce(ALONE) == {"loss": 2.0, "loss/tokens": 2.0, "accuracy/tokens": 0.0}


def test_without_any_target_there_is_no_loss() -> None:
    """A nought would look like a model that knows everything."""
    scores = Scores(HEADS)
    scores.add(sums(0.0, 0.0), batch(0, 0))
    assert scores.reduce(ALONE) == {}
