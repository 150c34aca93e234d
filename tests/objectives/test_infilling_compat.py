"""The noise of fairseq, which `infilling` makes with `compat`."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from megapt.data import Window
from tests.chance import assert_fits
from tests.objectives.builders import build, examples_of
from tests.objectives.infilled import PLAIN, THREE, V, distinct, hidden_words, source_of, sources
from tests.windows import make_piece


def noised_by_hand(n: int, rate: float, mean: float, share: float, rng: random.Random) -> list[int]:
    """BART's noise on words 0..n-1, word by word; -1 is a [MASK], -2 a random token.

    Lengths are drawn until they reach the budget. Spans begin at different words and overwrite each
    other: the [MASK] stands where a span begins, unless a later step of another one deletes it.
    """

    def poisson() -> int:
        k, p, u = 0, math.exp(-mean), rng.random()
        while u >= p and k < 100:
            u, k = u - p, k + 1
            p *= mean / k
        return k

    budget, lengths = math.ceil(n * rate), list[int]()
    while sum(lengths) < budget:
        lengths.append(min(poisson(), budget - sum(lengths)))
    spans = [length for length in lengths if length]
    starts = rng.sample(range(n), len(spans))
    words: list[int | None] = list(range(n))
    for start in starts:
        words[start] = -2 if rng.random() < share else -1
    for start, length in zip(starts, spans, strict=True):
        for place in range(start + 1, min(start + length, n)):
            words[place] = None
    source = [word for word in words if word is not None]
    inserts = len(lengths) - len(spans)
    places = rng.sample(range(len(source) + inserts), inserts)
    randoms = set(places[: math.ceil(inserts * share)])
    left = iter(source)
    return [
        (-2 if place in randoms else -1) if place in places else next(left)
        for place in range(len(source) + inserts)
    ]


@pytest.mark.parametrize(("n", "mean"), [(6, 2.0), (30, 3.5)])
def test_compat_follows_fairseq(n: int, mean: float) -> None:
    """The same lengths, [MASK]s, random tokens and hidden words as by hand, from other draws."""
    count, rng = 8000, random.Random(n)
    piece, share = distinct(n), 0.3
    noise: dict[str, Any] = {
        "permute_sentences": 0.0,
        "mean_span_length": mean,
        "random_replace_prob": share,
    }
    ours = []
    for source in sources(piece, count, compat="bart", **noise):
        # A random token may be one of the text: only its share of the others can be told.
        ours.append([t if t == V.mask or t in piece.tokens else -2 for t in source])
    hand = [noised_by_hand(n, 0.3, mean, share, rng) for _ in range(count)]
    told = 1 - n / (V.size - 1) - 1 / (V.size - 1)

    def counts(values: list[int]) -> Counter[int]:
        return Counter(values)

    pairs = [
        (counts([len(s) for s in ours]), counts([len(s) for s in hand])),
        (
            counts([s[0] == V.mask for s in ours]),
            counts([s[0] == -1 or (s[0] == -2 and rng.random() < 1 / (V.size - 1)) for s in hand]),
        ),
        (
            counts([s.count(-2) for s in ours]),
            counts([sum(w == -2 and rng.random() < told for w in s) for s in hand]),
        ),
    ]
    for a, b in pairs:
        both = [k for k in a | b if a[k] + b[k] > 20]
        statistic = sum((a[k] - b[k]) ** 2 / (a[k] + b[k]) for k in both)
        freedom = len(both) - 1
        assert statistic < freedom + 5 * math.sqrt(2 * max(freedom, 1))


def test_compat_rounds_up_and_lays_spans_over_each_other() -> None:
    """A lone word is always hidden; in longer texts too few are, because spans overlap.

    In single precision 0.3 x 100 is a little more than 30, so the budget is 31.
    """
    assert (
        sources(distinct(1), 50, **PLAIN, compat="bart", mean_span_length=20.0) == [[V.mask]] * 50
    )
    piece = distinct(100)
    found = [hidden_words(s, piece) for s in sources(piece, 500, **PLAIN, compat="bart")]
    assert max(found) == 31
    assert np.mean(found) < 29


def test_compat_cuts_spans_at_the_end_of_a_text() -> None:
    """Of two words one is hidden, however far the spans of the text before would reach."""
    first = distinct(60, words=list(range(0, 60, 2)))
    second = make_piece(V.ordinary[60:64].tolist(), words=[0, 1])
    objective = build("infilling", **PLAIN, compat="bart", mean_span_length=20.0)
    for key in range(200):
        sources = map(source_of, examples_of(objective, Window(0, 0, (first, second)), key))
        hidden = list(map(hidden_words, sources, (first, second)))
        assert 0 < hidden[0] <= 9
        assert hidden[1] == 1


def test_compat_draws_any_id_but_the_first() -> None:
    piece = make_piece([40] * 100)
    drawn = sources(piece, 1500, compat="bart", permute_sentences=0.0, random_replace_prob=1.0)
    counts = np.bincount(np.concatenate(drawn), minlength=V.size)
    assert counts[0] == 0
    assert_fits(np.delete(counts, [0, 40]), np.ones(V.size - 2))


@pytest.mark.parametrize(("share", "moving"), [(0.1, 1), (0.4, 2), (0.6, 2), (1.0, 3)])
def test_compat_rounds_the_share_of_sentences_up(share: float, moving: int) -> None:
    drawn = sources(THREE, 600, compat="bart", mask_rate=0.0, permute_sentences=share)
    orders = {tuple(source) for source in drawn}
    # One of three alone cannot move; two of three exchange, each two; three make all six orders.
    assert len(orders) == {1: 1, 2: 4, 3: 6}[moving]
