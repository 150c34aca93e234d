"""One loss from the sums of every part."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megapt.data import HeadSpec
from megapt.evaluation.losses import Scores, Totals, count_parts, factors
from megapt.model import PartSums
from tests.training.runs import ALONE

HEADS = (HeadSpec("tokens", "token"), HeadSpec("class", "sequence", 2, weight=0.5))


def sums(tokens: float, classes: float, right: float = 0.0) -> dict[str, PartSums]:
    return {
        "tokens": PartSums(torch.tensor(tokens), torch.tensor(right)),
        "class": PartSums(torch.tensor(classes), torch.tensor(right)),
    }


class Asked(SimpleNamespace):
    def __len__(self) -> int:
        return int(self.count)


def batch(tokens: float, classes: float, windows: int = 1) -> Any:
    asked = {
        head: Asked(count=-(-size // 1), size=size, windows=windows if size else 0)
        for head, size in {"tokens": tokens, "class": classes}.items()
    }
    return SimpleNamespace(targets=asked)


def mixed(share: Any) -> tuple[HeadSpec, ...]:
    return tuple(HeadSpec(name, "token", weight=2.0, shares=(share,)) for name in ("a/x", "b/x"))


def test_every_part_is_divided_by_its_own_size_in_the_whole_step() -> None:
    assert factors(HEADS, Totals([3.0, 4.0], [1, 1])) == {"tokens": 1 / 3, "class": 0.5 / 4}


def test_a_part_without_targets_in_the_step_adds_nothing() -> None:
    assert factors(HEADS, Totals([3.0, 0.0], [1, 0])) == {"tokens": 1 / 3, "class": 0.0}


def test_by_windows_each_window_counts_alike() -> None:
    """Three windows of a have 30 targets each, one window of b has 5."""
    found = factors(mixed("windows"), Totals([90.0, 5.0], [3, 1]))
    assert found == pytest.approx({"a/x": 2 * 3 / 4 / 90, "b/x": 2 * 1 / 4 / 5})


def test_by_targets_each_target_counts_alike() -> None:
    found = factors(mixed("targets"), Totals([90.0, 5.0], [3, 1]))
    assert found == pytest.approx({"a/x": 2 / 95, "b/x": 2 / 95})


def test_a_lone_member_is_weighed_as_without_a_mixture() -> None:
    """Both parts of one member, though one of them was asked in fewer windows."""
    alone = (HeadSpec("tokens", "token"), HeadSpec("nsp", "pair", 2, weight=0.5))
    for share in ("windows", "all"):
        heads = tuple(replace(h, name=f"bert/{h.name}", shares=(share,)) for h in alone)
        totals = Totals([30.0, 4.0], [5, 5])
        assert [*factors(heads, totals).values()] == [*factors(alone, totals).values()]


def test_a_mixture_in_a_mixture_keeps_its_own_weighing() -> None:
    """u has 6 of 8 windows; inside each target counts alike, of which one part has 10 of 40."""
    heads = tuple(
        HeadSpec(name, "token", shares=shares)
        for name, shares in {
            "u/r/tokens": ("windows", "targets"),
            "u/x/tokens": ("windows", "targets"),
            "m/tokens": ("windows",),
        }.items()
    )
    found = factors(heads, Totals([10.0, 30.0, 7.0], [4, 2, 2]))
    expected = {"u/r/tokens": 6 / 8 / 40, "u/x/tokens": 6 / 8 / 40, "m/tokens": 2 / 8 / 7}
    assert found == pytest.approx(expected)


def test_sizes_and_windows_are_summed_over_batches_part_by_part() -> None:
    assert count_parts([batch(3, 1), batch(4.5, 0)], HEADS) == ([7.5, 1], [2, 1])


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


def test_a_loss_is_a_mean_over_sizes_and_an_accuracy_over_targets() -> None:
    scores = Scores(HEADS[:1])
    scores.add({"tokens": PartSums(torch.tensor(6.0), torch.tensor(1.0))}, batch(1.5, 0))
    assert scores.reduce(ALONE) == {"loss": 4.0, "loss/tokens": 4.0, "accuracy/tokens": 0.5}


def test_the_scores_of_a_mixture_count_windows() -> None:
    heads = tuple(HeadSpec(name, "token", shares=("windows",)) for name in ("a/x", "b/x"))
    scores = Scores(heads)
    for nats, sizes, windows in (((6.0, 8.0), (3, 2), (1, 1)), ((6.0, 0.0), (3, 0), (2, 0))):
        results = {
            h.name: PartSums(torch.tensor(n), torch.tensor(0.0))
            for h, n in zip(heads, nats, strict=True)
        }
        asked = {
            h.name: Asked(count=size, size=size, windows=seen)
            for h, size, seen in zip(heads, sizes, windows, strict=True)
        }
        scores.add(results, SimpleNamespace(targets=asked))  # type: ignore[arg-type]
    assert scores.reduce(ALONE)["loss"] == pytest.approx((3 / 4) * 2.0 + (1 / 4) * 4.0)


def test_a_part_that_was_never_asked_has_no_scores() -> None:
    scores = Scores(HEADS)
    scores.add(sums(6.0, 0.0), batch(3, 0))
    assert scores.reduce(ALONE) == {"loss": 2.0, "loss/tokens": 2.0, "accuracy/tokens": 0.0}


def test_without_any_target_there_is_no_loss() -> None:
    """A nought would look like a model that knows everything."""
    scores = Scores(HEADS)
    scores.add(sums(0.0, 0.0), batch(0, 0))
    assert scores.reduce(ALONE) == {}
