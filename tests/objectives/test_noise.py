from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from megapt.data import CounterRng, Piece, Vocabulary
from megapt.data.example import Bools, Ints
from megapt.objectives import noise
from megapt.objectives.noise import MaskingConfig, _span_lengths, choose, choose_tokens, corrupt
from tests.chance import assert_fits, assert_mean
from tests.splitmix import PlainRng
from tests.windows import VOCABULARY, keys, make_piece, pieces, random_piece

V = VOCABULARY
UNITS = ["token", "word", "span"]
rates = st.sampled_from([0.01, 0.15, 0.3, 0.5, 0.99])
configs = st.builds(
    MaskingConfig,
    mask_rate=rates,
    unit=st.sampled_from(UNITS),
    span_p=st.sampled_from([0.05, 0.2, 0.9]),
    span_longest=st.integers(1, 10),
)


def units(piece: Piece, config: MaskingConfig, rng: CounterRng) -> Ints:
    return noise.units(piece.word_starts, config, rng)


def mask(piece: Piece, config: MaskingConfig, rng: CounterRng) -> tuple[Ints, Bools]:
    [masked] = noise.mask([piece], config, V, rng)
    chosen = np.zeros(len(piece.tokens), dtype=np.bool_)
    chosen[masked.places] = True
    assert (masked.labels == piece.tokens[chosen]).all()
    return masked.tokens, chosen


def corrupt_all(tokens: Ints, config: MaskingConfig, key: str, vocabulary: Vocabulary = V) -> Ints:
    """`tokens` with every one of them chosen."""
    return corrupt(tokens, np.arange(len(tokens)), config, vocabulary, CounterRng(key))


def mask_by_hand(
    texts: list[list[int]], config: MaskingConfig, rng: PlainRng
) -> list[tuple[list[int], list[int]]]:
    """The rule of docs/objectives.md for single tokens, one token at a time."""
    chosen = []
    for tokens in texts:
        budget = config.mask_rate * len(tokens)
        order = rng.permutation(len(tokens))
        count = math.floor(budget)
        count += rng.uniform() < budget - count
        chosen.append(sorted(order[: max(1, count)]))
    every = [(text, place) for text, places in enumerate(chosen) for place in places]
    shares = [rng.uniform() for _ in every]
    randoms = [rng.integer(33, V.size) for _ in every]
    corrupted = [list(tokens) for tokens in texts]
    for (text, place), u, random in zip(every, shares, randoms, strict=True):
        if u < config.mask_share:
            corrupted[text][place] = V.mask
        elif u < config.mask_share + config.random_share:
            corrupted[text][place] = random
    return list(zip(corrupted, chosen, strict=True))


def word_numbers(piece: Piece) -> np.ndarray:
    return np.cumsum(piece.word_starts) - 1


# --- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_rate": 0.0},
        {"mask_rate": 1.0},
        {"mask_rate": float("nan")},
        {"unit": "sentence"},
        {"span_p": 0.0},
        {"span_p": 1.0},
        {"span_longest": 0},
        {"mask_share": 1.1},
        {"random_share": -0.1},
        {"mask_share": 0.8, "random_share": 0.3},
        {"maskrate": 0.15},
    ],
)
def test_settings_that_make_no_mask_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MaskingConfig(**wrong)


def test_the_defaults_are_those_of_bert() -> None:
    config = MaskingConfig()
    assert (config.mask_rate, config.mask_share, config.random_share) == (0.15, 0.8, 0.1)
    assert config.unit == "token"


# --- which tokens ---------------------------------------------------------------------------


@given(pieces, configs, keys)
def test_units_number_runs_of_tokens_from_0_on(
    piece: Piece, config: MaskingConfig, key: int
) -> None:
    unit_of = units(piece, config, CounterRng(key))
    assert len(unit_of) == len(piece.tokens)
    assert unit_of[0] == 0
    assert set(np.diff(unit_of)) <= {0, 1}


@given(pieces, keys)
def test_a_word_is_a_unit(piece: Piece, key: int) -> None:
    found = units(piece, MaskingConfig(unit="word"), CounterRng(key))
    assert found.tolist() == word_numbers(piece).tolist()


@given(pieces, keys, st.integers(1, 10))
def test_a_span_is_a_union_of_whole_words_and_not_too_long(
    piece: Piece, key: int, longest: int
) -> None:
    config = MaskingConfig(unit="span", span_longest=longest)
    unit_of, words = units(piece, config, CounterRng(key)), word_numbers(piece)
    for word in range(words[-1] + 1):
        assert len(set(unit_of[words == word])) == 1
    for unit in range(unit_of[-1] + 1):
        assert len(set(words[unit_of == unit])) <= longest


@pytest.mark.parametrize(("p", "longest"), [(0.2, 10), (0.3, 10), (0.05, 4), (0.9, 3), (0.5, 1)])
def test_span_lengths_follow_the_truncated_geometric_distribution(p: float, longest: int) -> None:
    lengths = _span_lengths(50_000, p, longest, CounterRng("spans", longest))
    assert lengths.min() == 1
    assert lengths.max() == longest
    if longest > 1:
        shares = [(1 - p) ** (length - 1) * p for length in range(1, longest + 1)]
        assert_fits(np.bincount(lengths, minlength=longest + 1)[1:], shares)


def test_the_mean_span_is_that_of_spanbert() -> None:
    # Joshi et al. 2020, section 3.1: p = 0.2, cut at 10, mean 3.8.
    lengths = _span_lengths(100_000, 0.2, 10, CounterRng("mean"))
    assert lengths.mean() == pytest.approx(3.8, abs=0.02)


def test_spans_of_a_text_follow_the_distribution() -> None:
    piece = make_piece([50] * 20_000)
    unit_of = units(piece, MaskingConfig(unit="span"), CounterRng("text"))
    lengths = np.bincount(unit_of)[:-1]  # the last one may be cut by the end of the text
    assert_fits(np.bincount(lengths)[1:], [0.8 ** (n - 1) for n in range(1, 11)])


@given(pieces, configs, keys)
def test_whole_units_are_chosen_and_at_least_one(
    piece: Piece, config: MaskingConfig, key: int
) -> None:
    unit_of = units(piece, config, CounterRng(key))
    chosen = choose(unit_of, config.mask_rate, CounterRng(key, "choose"))
    assert chosen.any()
    for unit in range(unit_of[-1] + 1):
        assert len(set(chosen[unit_of == unit])) == 1


@given(st.integers(1, 300), st.floats(0.001, 0.999), keys)
def test_tokens_are_chosen_to_the_floor_or_the_ceiling_of_the_budget(
    n: int, rate: float, key: int
) -> None:
    count = int(choose(np.arange(n), rate, CounterRng(key)).sum())
    assert max(1, math.floor(rate * n)) <= count <= max(1, math.ceil(rate * n))


@given(st.integers(1, 300), st.floats(0.001, 0.999), keys)
def test_tokens_chosen_without_sorting_are_those_of_units_of_one_token(
    n: int, rate: float, key: int
) -> None:
    ours, theirs = CounterRng(key), CounterRng(key)
    assert (choose_tokens(n, rate, ours) == choose(np.arange(n), rate, theirs)).all()
    assert ours.bits(1) == theirs.bits(1), "as many draws were taken"


@pytest.mark.parametrize(
    ("n", "rate"),
    # Half-even rounding would give 4 of 30 and 2 of 10 always; here the mean is exact.
    [(30, 0.15), (10, 0.15), (50, 0.15), (7, 0.5), (10, 0.25), (128, 0.15), (512, 0.15), (3, 0.4)],
)
def test_the_share_of_tokens_is_exact_in_expectation(n: int, rate: float) -> None:
    counts = [choose(np.arange(n), rate, CounterRng(key)).sum() for key in range(3000)]
    assert_mean(np.array(counts), rate * n)


@pytest.mark.parametrize(("n", "rate"), [(20, 0.15), (8, 0.25), (2, 0.5), (100, 0.3)])
def test_a_budget_of_whole_tokens_is_met_exactly(n: int, rate: float) -> None:
    counts = {int(choose(np.arange(n), rate, CounterRng(key)).sum()) for key in range(200)}
    assert counts == {round(rate * n)}


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_budget_below_one_token_masks_one(n: int) -> None:
    assert {int(choose(np.arange(n), 0.15, CounterRng(key)).sum()) for key in range(100)} == {1}


@pytest.mark.parametrize("unit", ["word", "span"])
def test_the_share_in_whole_units_is_exact_in_expectation(unit: str) -> None:
    piece = random_piece(400, 1)  # every unit is far below the budget of 60 tokens
    config = MaskingConfig(unit=unit)
    counts = [
        choose(units(piece, config, CounterRng(key)), 0.15, CounterRng(key, "choose")).sum()
        for key in range(3000)
    ]
    assert_mean(np.array(counts), 60)


@pytest.mark.parametrize(("unit", "length"), [("token", 9), ("word", 60), ("span", 60)])
def test_the_share_is_exact_in_short_texts_too(unit: str, length: int) -> None:
    """`mask_rate` promises the share "exact in expectation, at least one token"."""
    piece = make_piece(list(range(40, 40 + length)), words=range(0, length, 2))
    config = MaskingConfig(unit=unit)
    counts = [mask(piece, config, CounterRng(key))[1].sum() for key in range(4000)]
    assert_mean(np.array(counts), 0.15 * length)


def test_every_token_is_equally_likely_to_be_chosen() -> None:
    hits = sum(choose(np.arange(40), 0.15, CounterRng(key)).astype(int) for key in range(5000))
    # Draws without replacement: the counts vary by (1 - 1/40) (1 - 0.15) of the independent case.
    assert np.abs(hits - 750).max() < 4.5 * np.sqrt(750 * 0.85)


@pytest.mark.parametrize("unit", UNITS)
def test_a_single_token_is_masked(unit: str) -> None:
    _, chosen = mask(make_piece([50]), MaskingConfig(unit=unit), CounterRng(0))
    assert chosen.tolist() == [True]


# --- what stands in their place -------------------------------------------------------------


@given(pieces, configs, keys)
def test_only_chosen_tokens_change_and_only_to_mask_or_ordinary_ids(
    piece: Piece, config: MaskingConfig, key: int
) -> None:
    before = piece.tokens.copy()
    corrupted, chosen = mask(piece, config, CounterRng(key))
    assert (piece.tokens == before).all()
    assert (corrupted[~chosen] == before[~chosen]).all()
    new = corrupted[chosen]
    assert ((new == V.mask) | np.isin(new, V.ordinary)).all()


@given(st.lists(pieces, max_size=4), rates, keys)
def test_masks_are_those_of_the_rule_worked_by_hand(
    texts: list[Piece], rate: float, key: int
) -> None:
    config = MaskingConfig(mask_rate=rate)
    masked = noise.mask(texts, config, V, CounterRng(key, "mlm"))
    by_hand = mask_by_hand([t.tokens.tolist() for t in texts], config, PlainRng(key, "mlm"))
    assert [(text.tokens.tolist(), text.places.tolist()) for text in masked] == by_hand


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.5, 0.25), (0.1, 0.6)])
def test_mask_random_and_kept_come_in_their_shares(shares: tuple[float, float]) -> None:
    tokens = np.full(60_000, 40)
    config = MaskingConfig(mask_share=shares[0], random_share=shares[1])
    corrupted = corrupt_all(tokens, config, "80")
    # A random id is the old one once in all ordinary ids.
    chance = shares[1] / (len(V.ordinary))
    kept, masked = (corrupted == 40).sum(), (corrupted == V.mask).sum()
    assert_fits(
        [masked, kept, len(tokens) - masked - kept],
        [shares[0], 1 - sum(shares) + chance, shares[1] - chance],
    )


def test_random_ids_are_uniform_over_the_ordinary_pieces() -> None:
    tokens = np.full(100_000, 40)
    config = MaskingConfig(mask_share=0.0, random_share=1.0)
    corrupted = corrupt_all(tokens, config, "ids")
    assert corrupted.min() == V.ordinary[0]
    assert_fits(np.bincount(corrupted)[V.ordinary[0] :], np.ones(len(V.ordinary)))


def test_random_ids_pass_over_reserved_ids_anywhere() -> None:
    scattered = V.model_copy(update={"mask": 150, "reserved": [0, 7, 8, 150, 199]})
    tokens = np.full(100_000, 40)
    config = MaskingConfig(mask_share=0.0, random_share=1.0)
    drawn = np.bincount(corrupt_all(tokens, config, "ids", scattered), minlength=200)
    assert drawn[[0, 7, 8, 150, 199]].sum() == 0
    assert_fits(np.delete(drawn, [0, 7, 8, 150, 199]), np.ones(195))


def test_the_replacement_does_not_depend_on_the_place() -> None:
    """The kinds of replacement of neighbouring tokens are independent of each other."""
    tokens = np.full(60_000, 40)
    corrupted = corrupt_all(tokens, MaskingConfig(), "pairs")
    masked = (corrupted == V.mask).astype(int)
    pairs = np.bincount(2 * masked[::2] + masked[1::2], minlength=4)
    assert_fits(pairs, [0.04, 0.16, 0.16, 0.64])


@pytest.mark.parametrize(
    ("shares", "expected"), [((1.0, 0.0), {V.mask}), ((0.0, 0.0), {40}), ((0.9, 0.1), None)]
)
def test_extreme_shares(shares: tuple[float, float], expected: set[int] | None) -> None:
    tokens = np.full(2000, 40)
    config = MaskingConfig(mask_share=shares[0], random_share=shares[1])
    corrupted = corrupt_all(tokens, config, "all")
    if expected is not None:
        assert set(corrupted.tolist()) == expected
    else:
        assert (corrupted == 40).sum() < 10  # by chance alone, never as "kept"


@given(st.lists(pieces, min_size=1, max_size=5), configs, keys)
def test_every_text_of_a_window_is_masked_by_itself(
    texts: list[Piece], config: MaskingConfig, key: int
) -> None:
    masked = noise.mask(texts, config, V, CounterRng(key))
    for text, found in zip(texts, masked, strict=True):
        restored = found.tokens.copy()
        restored[found.places] = found.labels
        assert restored.tolist() == text.tokens.tolist()
        assert len(found.places) > 0
        assert (np.diff(found.places) > 0).all()
        changed = np.flatnonzero(found.tokens != text.tokens)
        assert set(changed) <= set(found.places)


def test_every_text_of_a_window_has_its_own_budget() -> None:
    texts = [random_piece(length, 1) for length in (20, 200)]
    masks = [noise.mask(texts, MaskingConfig(), V, CounterRng(key)) for key in range(200)]
    assert {tuple(len(text.places) for text in masked) for masked in masks} == {(3, 30)}


@given(pieces, configs, keys)
def test_the_same_key_gives_the_same_mask(piece: Piece, config: MaskingConfig, key: int) -> None:
    first, second = (mask(piece, config, CounterRng(key)) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


@pytest.mark.parametrize("unit", UNITS)
def test_neighbouring_windows_get_different_masks(unit: str) -> None:
    piece, config = random_piece(500, 3), MaskingConfig(unit=unit)
    masks = {
        tuple(mask(piece, config, CounterRng(0, "train", 0, window, "mlm"))[1].tolist())
        for window in range(300)
    }
    assert len(masks) == 300
