"""How many spans `infilling` hides, how long they are, and what an example costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megapt.data import CounterRng, Window
from megapt.objectives.word_spans import draw_spans, expected_spans, span_table
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.objectives.infilled import distinct


@pytest.mark.parametrize("mean", [1.0, 3.5, 30.0, 100.0])
def test_the_table_is_poisson(mean: float) -> None:
    table = span_table(mean)
    masses = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(1000)]
    positive = sum(masses[1:])
    assert np.diff(table, prepend=0) == pytest.approx(
        [mass / positive for mass in masses[1 : len(table) + 1]], abs=1e-14
    )
    assert sum(masses[len(table) + 1 :]) < 2**-53
    assert table[-1] == 1


@pytest.mark.parametrize("mean", [1.0, 3.5, 6.0])
def test_span_lengths_are_poisson_with_the_empty_ones(mean: float) -> None:
    """All but the last of a text, which is cut."""
    words = np.array([60_000, 0, 3])
    spans = draw_spans(words, words * 10, mean, CounterRng("lengths"))
    first = spans.lengths[: int(spans.counts[0])]
    assert first.sum() == 60_000
    assert spans.counts[1] == 0
    assert spans.lengths[-int(spans.counts[2]) :].sum() == 3
    filled = int(spans.counts[0] - spans.empty[0])
    lengths = [*first[: filled - 1], *first[filled:]]
    longest = int(mean + 2 * math.sqrt(mean))
    observed = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)
    masses = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(longest)]
    assert_fits(observed, [*masses, 1 - sum(masses)])


@pytest.mark.parametrize(("words", "mean"), [(1, 3.5), (2, 1.0), (7, 3.5), (40, 3.5), (40, 1.0)])
def test_the_expected_number_of_spans(words: int, mean: float) -> None:
    many = np.full(20_000, words)
    spans = draw_spans(many, many * 1000, mean, CounterRng(words))
    assert_mean(spans.counts, expected_spans(words, mean))


def test_the_expected_number_of_spans_by_hand() -> None:
    drawn = 1 / (1 - math.exp(-2))
    one = 2 * math.exp(-2) * drawn
    assert expected_spans(0, 2.0) == 0
    assert expected_spans(1, 2.0) == pytest.approx(drawn)
    assert expected_spans(2, 2.0) == pytest.approx(drawn * (1 + one))


@pytest.mark.parametrize("replace", ["one", "each", "none"])
@pytest.mark.parametrize("n", [1, 5, 64, 150])
def test_the_cost(n: int, replace: str) -> None:
    objective = build("infilling", replace=replace)
    window = Window(0, 0, (distinct(n),))
    examples = [examples_of(objective, window, key)[0] for key in range(1500)]
    cost = objective.cost(n)
    assert_mean([len(example) for example in examples], cost.positions)
    assert {len(example.targets["tokens"].labels) for example in examples} == {cost.targets}


@pytest.mark.parametrize("n", [1, 30, 61, 64])
def test_the_cost_knows_that_a_source_may_be_full(n: int) -> None:
    """An upper bound there, which no example exceeds and which holds for the mean."""
    objective = build("infilling", window=64, mask_rate=0.9, mean_span_length=1)
    window = Window(0, 0, (distinct(n),))
    sizes = [len(examples_of(objective, window, key)[0]) for key in range(500)]
    cost = objective.cost(n).positions
    assert np.mean(sizes) <= cost + 0.5
    assert cost <= np.mean(sizes) + 4
    assert cost <= objective.longest_example(64)
