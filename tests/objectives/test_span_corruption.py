from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Example, Window
from megapt.objectives.spans import largest_text, noise_mask, parts, span_counts
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, sized_windows

V = VOCABULARY
W = 64
SPANS = build("span_corruption", window=W)
COMPATS = pytest.mark.parametrize("compat", [None, "t5"])
rates = st.sampled_from([0.01, 0.15, 0.25, 0.5, 0.8, 0.99])
means = st.sampled_from([3.0, 4.5, 8.0, 32.0])


def counts(n: int, rate: float, mean: float) -> tuple[int, int]:
    noise, spans = span_counts(np.array([n]), rate, mean)
    return int(noise[0]), int(spans[0])


def masks(texts: int, n: int, rate: float, mean: float, *, roll: bool) -> np.ndarray:
    """The noise of many texts of n tokens, bool [texts, n]."""
    return noise_mask(np.full(texts, n), rate, mean, roll, CounterRng(1)).reshape(texts, n)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of the runs of noise of one text."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def divided(example: Example) -> tuple[list[int], list[int]]:
    """The source and the target, without [CLS], mode, [SEP], [BOS] and [EOS]."""
    size = int(example.visible.sum())
    tokens = example.tokens.tolist()
    assert (tokens[0], tokens[size - 1], tokens[size]) == (V.cls, V.sep, V.bos)
    start = 2 if tokens[1] in V.modes.values() else 1
    return tokens[start : size - 1], tokens[size + 1 :]


def rebuilt(example: Example) -> list[int]:
    """The text: for each sentinel of the source what follows it in the target."""
    source, target = divided(example)
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in V.sentinels:
            assert token not in spans
            last = spans[token] = []
        else:
            last.append(token)
    assert list(spans) == V.sentinels[: len(spans)]
    assert [token for token in source if token in V.sentinels] == list(spans)
    return [t for token in source for t in spans.get(token, [token])]


# --- how many -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.2, 0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("mean", [1.0, 1.5, 2.0, 3.0, 8.0, 64.0])
def test_counts_are_those_of_the_formula(rate: float, mean: float) -> None:
    sizes = np.arange(1, 700)
    found = np.stack(span_counts(sizes, rate, mean), axis=1).tolist()
    for n, (noise, spans) in zip(sizes.tolist(), found, strict=True):
        m = max(n, 2)
        assert noise == min(max(round(m * rate), 1), m - 1)
        assert spans == min(max(round(noise / mean), 1), m - noise)


@pytest.mark.parametrize(
    ("n", "rate", "mean", "expected"),
    [
        (1, 0.15, 3.0, (1, 1)),
        (2, 0.15, 3.0, (1, 1)),
        (2, 0.99, 1.0, (1, 1)),
        (10, 0.15, 3.0, (2, 1)),  # 1.5 -> 2
        (30, 0.15, 3.0, (4, 1)),  # 4.5 -> 4
        (50, 0.15, 3.0, (8, 3)),  # 7.5 -> 8
        (32, 0.25, 2.0, (8, 4)),  # T5's own test
        (20, 0.25, 2.0, (5, 2)),  # 2.5 -> 2
        (12, 0.25, 2.0, (3, 2)),  # 1.5 -> 2
        (10, 0.9, 1.0, (9, 1)),  # a span a kept token at most
        (512, 0.15, 3.0, (77, 26)),
        (512, 0.5, 3.0, (256, 85)),
    ],
)
def test_golden_counts(n: int, rate: float, mean: float, expected: tuple[int, int]) -> None:
    assert counts(n, rate, mean) == expected


@given(st.floats(0.001, 0.999), st.floats(1, 100))
def test_counts_never_fall_as_the_text_grows(rate: float, mean: float) -> None:
    sizes = np.arange(1, 600)
    noise, spans = span_counts(sizes, rate, mean)
    for values in (noise, spans, sizes - noise, spans + (noise > spans)):
        assert (np.diff(values) >= 0).all()


GOLDEN_LENGTHS = [  # random_spans_helper of T5: inputs, rate, mean -> raw tokens, targets, spans
    (512, 0.15, 3, 568, 114, 28),
    (1024, 0.15, 3, 1137, 229, 57),
    (2048, 0.15, 3, 2274, 456, 114),
    (4096, 0.15, 3, 4550, 910, 227),
    (512, 0.5, 3, 766, 512, 128),
    (512, 0.15, 8, 588, 100, 11),
    (512, 0.5, 8, 908, 512, 57),
    (512, 0.15, 64, 600, 92, 1),
    (512, 0.5, 64, 1006, 512, 8),
    (64, 0.2, 2, 70, 22, 7),
    (64, 0.2, 1, 63, 27, 13),
]


@pytest.mark.parametrize(("source", "rate", "mean", "raw", "target", "spans"), GOLDEN_LENGTHS)
def test_the_length_solver_gives_t5s_table(
    source: int, rate: float, mean: float, raw: int, target: int, spans: int
) -> None:
    assert largest_text(source, rate, mean) == raw
    noise, found = counts(raw, rate, mean)
    assert (noise + found + 1, found) == (target, spans)


@given(st.integers(2, 600), st.floats(0.001, 0.999).filter(lambda r: r != 0.5), st.floats(1, 100))
def test_the_largest_text_fits_and_one_token_more_does_not(
    source: int, rate: float, mean: float
) -> None:
    def takes(n: int) -> int:
        noise, spans = counts(n, rate, mean)
        return n - noise + spans + 1

    largest = largest_text(source, rate, mean)
    assert takes(largest) <= source < takes(largest + 1)


# --- where --------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
    st.floats(1, 40),
    st.booleans(),
    keys,
)
def test_masks_have_their_counts(
    sizes: list[int], rate: float, mean: float, roll: bool, key: int
) -> None:
    mask = noise_mask(np.array(sizes), rate, mean, roll, CounterRng(key))
    for n, own in zip(sizes, np.split(mask, np.cumsum(sizes)[:-1]), strict=True):
        noise, spans = counts(n, rate, mean)
        assert own.sum() == noise
        found = len(runs(own))
        around = bool(own[0] and own[-1] and not own.all())
        assert found == spans + around
        if n > 1 and not roll:
            assert own[-1]
            assert not own[0]


def test_golden_mask_of_t5() -> None:
    """`test_random_spans_noise_mask`: 8 tokens in 4 spans."""
    for mask in masks(50, 32, 0.25, 2.0, roll=False):
        assert mask.sum() == 8
        assert len(runs(mask)) == 4


def test_compositions_are_equally_likely() -> None:
    texts = 10_000
    found = parts(np.full(texts, 6), np.full(texts, 3), CounterRng(2)).reshape(texts, 3)
    ways = Counter(map(tuple, found.tolist()))
    assert set(ways) == {(a, b, 6 - a - b) for a in range(1, 5) for b in range(1, 6 - a)}
    assert_fits(list(ways.values()), np.ones(10))


def test_parts_of_unequal_runs_stay_in_their_runs() -> None:
    sizes, cuts = np.array([1, 7, 3, 5]), np.array([1, 2, 3, 1])
    for key in range(20):
        found = parts(sizes, cuts, CounterRng(key))
        assert (found >= 1).all()
        assert np.add.reduceat(found, [0, 1, 3, 6]).tolist() == sizes.tolist()


def every_mask(n: int, noise: int, spans: int) -> list[tuple[bool, ...]]:
    """All masks of T5's rule: noise and the rest in `spans` parts, the rest first."""

    def cut(total: int) -> list[list[int]]:
        inner = combinations(range(1, total), spans - 1)
        return [np.diff([0, *places, total]).tolist() for places in inner]

    return [
        tuple(v for a, b in zip(kept, noisy, strict=True) for v in [False] * a + [True] * b)
        for kept, noisy in product(cut(n - noise), cut(noise))
    ]


def test_masks_that_t5_may_draw_are_equally_likely() -> None:
    expected = every_mask(8, *counts(8, 0.5, 2.0))
    assert len(expected) == 9
    found = Counter(map(tuple, masks(9000, 8, 0.5, 2.0, roll=False).tolist()))
    assert_fits([found.pop(mask) for mask in expected], np.ones(9))
    assert not found


def test_every_roll_of_a_mask_is_equally_likely() -> None:
    once = every_mask(8, *counts(8, 0.5, 2.0))
    rolled = Counter(mask[-k:] + mask[:-k] for mask in once for k in range(8))
    found = Counter(map(tuple, masks(20_000, 8, 0.5, 2.0, roll=True).tolist()))
    assert set(found) == set(rolled)
    assert_fits([found[mask] for mask in rolled], list(rolled.values()))


@pytest.mark.parametrize(("n", "rate", "mean"), [(2, 0.15, 3.0), (12, 0.25, 2.0), (40, 0.15, 8.0)])
def test_a_rolled_mask_takes_every_place_alike(n: int, rate: float, mean: float) -> None:
    """One noise token of each text, picked blindly: independent draws, as the test supposes."""
    mask = masks(20_000, n, rate, mean, roll=True)
    picked = (mask * np.random.default_rng(0).random(mask.shape)).argmax(axis=1)
    assert_fits(np.bincount(picked, minlength=n), np.ones(n))


def test_without_rolling_the_first_token_is_never_noise_and_the_last_one_always() -> None:
    mask = masks(2000, 12, 0.25, 2.0, roll=False)
    assert not mask[:, 0].any()
    assert mask[:, -1].all()


# --- examples -----------------------------------------------------------------------------------


@COMPATS
@given(drawn=sized_windows(), rate=rates, mean=means, key=keys)
def test_sources_and_targets_rebuild_the_text(
    compat: str | None, drawn: tuple[int, Window], rate: float, mean: float, key: int
) -> None:
    size, window = drawn
    objective = build(
        "span_corruption", window=size, noise_density=rate, mean_span_length=mean, compat=compat
    )
    examples = examples_of(objective, window, key)
    for piece, example in zip(window.pieces, examples, strict=True):
        assert rebuilt(example) == piece.tokens.tolist()
        assert example.document == piece.document


@given(drawn=sized_windows(), rate=rates, mean=means, key=keys)
def test_targets_predict_themselves_and_the_end(
    drawn: tuple[int, Window], rate: float, mean: float, key: int
) -> None:
    size, window = drawn
    objective = build("span_corruption", window=size, noise_density=rate, mean_span_length=mean)
    for piece, example in zip(window.pieces, examples_of(objective, window, key), strict=True):
        source, target = divided(example)
        asked = example.targets["tokens"]
        assert asked.labels.tolist() == [*target, V.eos]
        assert asked.positions.tolist() == list(range(len(source) + 2, len(example)))
        noise = [token for token in target if token not in V.sentinels]
        assert len(noise) == counts(len(piece.tokens), rate, mean)[0]
        assert not set(noise) & set(V.reserved), "special tokens are never noise"


def test_golden_example() -> None:
    """T5's rule leaves one way of masking two tokens."""
    piece = make_piece([50, 51], document=4)
    objective = build("span_corruption", window=W, compat="t5", mode="NLG")
    [example] = examples_of(objective, Window(0, 0, (piece,)), 0)
    s = V.sentinels[0]
    assert example.tokens.tolist() == [V.cls, V.modes["NLG"], 50, s, V.sep, V.bos, s, 51]
    assert example.segments.tolist() == [0] * 5 + [1] * 3
    assert example.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert example.visible.tolist() == [True] * 5 + [False] * 3
    assert example.targets["tokens"].positions.tolist() == [5, 6, 7]
    assert example.targets["tokens"].labels.tolist() == [s, 51, V.eos]
    assert example.document == 4


@COMPATS
def test_the_one_token_of_a_text_is_noise(compat: str | None) -> None:
    objective = build("span_corruption", window=W, compat=compat)
    [example] = examples_of(objective, Window(0, 0, (make_piece([50]),)), 0)
    assert divided(example) == ([V.sentinels[0]], [V.sentinels[0], 50])


def test_a_span_that_reaches_around_the_end_is_two_runs() -> None:
    piece = make_piece([50, 51, 52])
    objective = build("span_corruption", window=W, noise_density=0.6, mean_span_length=2.0)
    a, b = V.sentinels[:2]
    ways = Counter(
        tuple(map(tuple, divided(examples_of(objective, Window(0, 0, (piece,)), key)[0])))
        for key in range(600)
    )
    expected = [
        ((50, a), (a, 51, 52)),
        ((a, 52), (a, 50, 51)),
        ((a, 51, b), (a, 50, b, 52)),
    ]
    assert set(ways) == set(expected)
    assert_fits(list(ways.values()), np.ones(3))


def test_windows_and_keys_are_masked_differently() -> None:
    window = Window(0, 0, (random_piece(W, 0),))
    found = {tuple(examples_of(SPANS, window, key)[0].tokens.tolist()) for key in range(100)}
    assert len(found) == 100


@COMPATS
@pytest.mark.parametrize("mode", [None, "NLU"])
@pytest.mark.parametrize("n", [1, 2, 3, 11, 60])
@pytest.mark.parametrize(("rate", "mean"), [(0.15, 3.0), (0.5, 3.0), (0.8, 8.0)])
def test_examples_cost_what_is_said(
    compat: str | None, mode: str | None, n: int, rate: float, mean: float
) -> None:
    objective = build(
        "span_corruption",
        window=W,
        noise_density=rate,
        mean_span_length=mean,
        mode=mode,
        compat=compat,
    )
    window = Window(0, 0, tuple(random_piece(n, 0, document=d) for d in range(300)))
    examples = examples_of(objective, window, 0)
    cost = objective.cost(n)
    assert_mean([len(example) for example in examples], cost.positions)
    assert_mean([len(example.targets["tokens"].labels) for example in examples], cost.targets)


@COMPATS
@pytest.mark.parametrize(("rate", "mean"), [(0.15, 3.0), (0.5, 1.0), (0.5, 8.0), (0.99, 3.0)])
def test_the_longest_example_is_reached_and_never_passed(
    compat: str | None, rate: float, mean: float
) -> None:
    size = 24
    objective = build(
        "span_corruption",
        window=size,
        noise_density=rate,
        mean_span_length=mean,
        mode="NLU",
        compat=compat,
    )
    window = Window(0, 0, tuple(random_piece(n, 0) for n in [*range(1, size), *[size] * 100]))
    longest = max(map(len, examples_of(objective, window, 0)))
    assert longest == objective.longest_example(size)


def test_prompts_ask_for_what_follows_the_text() -> None:
    s = V.sentinels[0]
    prompt = build("span_corruption", window=W, mode="S2S").prompt(np.array([50, 51]))
    assert prompt is not None
    source = [V.cls, V.modes["S2S"], 50, 51, s, V.sep]
    assert prompt.tokens.tolist() == [*source, V.bos, s]
    assert prompt.visible.tolist() == [True] * 6 + [False] * 2
    assert not prompt.targets


def test_one_token_head() -> None:
    assert [(h.name, h.kind, h.weight) for h in SPANS.heads] == [("tokens", "token", 1)]
