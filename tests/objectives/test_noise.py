from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Piece, Vocabulary
from megapt.data.example import Bools, Ints
from megapt.objectives import masking, noise
from megapt.objectives.masking import MaskingConfig, choose_runs, choose_tokens
from megapt.objectives.noise import corrupt
from tests.chance import assert_fits, assert_mean
from tests.objectives.noising import UNITS, V, choose, configs, rates, some_pieces
from tests.splitmix import PlainRng
from tests.windows import keys, make_piece, pieces, random_piece


def mask(piece: Piece, config: MaskingConfig, rng: CounterRng) -> tuple[Ints, Bools]:
    [masked] = noise.mask([piece], config, V, rng)
    chosen = np.zeros(len(piece.tokens), dtype=np.bool_)
    chosen[masked.places] = True
    assert (masked.labels == piece.tokens[chosen]).all()
    return masked.tokens, chosen


def corrupt_all(tokens: Ints, config: MaskingConfig, key: str, vocabulary: Vocabulary = V) -> Ints:
    """`tokens` with every one of them chosen."""
    return corrupt(tokens, np.arange(len(tokens)), config, vocabulary, CounterRng(key))


def choose_by_hand(texts: list[list[int]], rate: float, rng: PlainRng) -> list[list[int]]:
    """The rule of docs/objectives.md, one run of tokens at a time.

    Args:
        texts: sizes of the runs of each text.
    """
    orders = [rng.permutation(len(sizes)) for sizes in texts]
    chosen = []
    for sizes, order in zip(texts, orders, strict=True):
        left, taken, u = rate * sum(sizes), [], rng.uniform()
        for run in order:
            if sizes[run] > left:
                if u < left / sizes[run] or not taken:
                    taken.append(run)
                break
            taken.append(run)
            left -= sizes[run]
        starts = list(accumulate(sizes, initial=0))
        chosen.append(sorted(p for run in taken for p in range(starts[run], starts[run + 1])))
    return chosen


def mask_by_hand(
    texts: list[list[int]], config: MaskingConfig, rng: PlainRng
) -> list[tuple[list[int], list[int]]]:
    """The rule of docs/objectives.md for single tokens, one token at a time."""
    chosen = choose_by_hand([[1] * len(tokens) for tokens in texts], config.mask_rate, rng)
    every = [(text, place) for text, places in enumerate(chosen) for place in places]
    shares = [rng.uniform() for _ in every]
    randoms = [rng.integer(33, V.size) for _ in every]
    corrupted = [list(tokens) for tokens in texts]
    for (text, place), u, random in zip(every, shares, randoms, strict=True):
        if u < config.mask_replace_prob:
            corrupted[text][place] = V.mask
        elif u < config.mask_replace_prob + config.random_replace_prob:
            corrupted[text][place] = random
    return list(zip(corrupted, chosen, strict=True))


@given(some_pieces, configs, keys)
def test_runs_are_chosen_by_the_rule_worked_by_hand(
    texts: list[Piece], config: MaskingConfig, key: int
) -> None:
    starts = np.concatenate([text.word_starts for text in texts])
    sizes = np.array([len(text.tokens) for text in texts])
    run_of = masking.runs(starts, sizes, config, config.mask_rate, CounterRng(key))
    chosen = choose_runs(run_of, sizes, config.mask_rate, CounterRng(key, "choose"))
    borders = np.cumsum(sizes)[:-1]
    found = [np.flatnonzero(part).tolist() for part in np.split(chosen, borders)]
    lengths = [
        np.unique(part, return_counts=True)[1].tolist() for part in np.split(run_of, borders)
    ]
    assert found == choose_by_hand(lengths, config.mask_rate, PlainRng(key, "choose"))
    assert all(found), "at least one of each text"


@given(st.integers(1, 300), st.floats(0.001, 0.999), keys)
def test_tokens_are_chosen_to_the_floor_or_the_ceiling_of_the_budget(
    n: int, rate: float, key: int
) -> None:
    count = int(choose(n, rate, CounterRng(key)).sum())
    assert max(1, math.floor(rate * n)) <= count <= max(1, math.ceil(rate * n))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.floats(0.001, 0.999), keys)
def test_tokens_are_chosen_like_runs_of_one_token(sizes: list[int], rate: float, key: int) -> None:
    ours, theirs, many = CounterRng(key), CounterRng(key), np.array(sizes)
    chosen = choose_tokens(many, rate, ours)
    assert (chosen == choose_runs(np.arange(many.sum()), many, rate, theirs)).all()
    assert ours.bits(1) == theirs.bits(1), "as many draws were taken"


@pytest.mark.parametrize(
    ("n", "rate"),
    # Half-even rounding would give 4 of 30 and 2 of 10 always; here the mean is exact.
    [(30, 0.15), (10, 0.15), (50, 0.15), (7, 0.5), (10, 0.25), (128, 0.15), (512, 0.15), (3, 0.4)],
)
def test_the_share_of_tokens_is_exact_in_expectation(n: int, rate: float) -> None:
    chosen = choose_tokens(np.full(3000, n), rate, CounterRng("share", n))
    assert_mean(chosen.reshape(3000, n).sum(axis=1), rate * n)


@pytest.mark.parametrize(("n", "rate"), [(20, 0.15), (8, 0.25), (2, 0.5), (100, 0.3)])
def test_a_budget_of_whole_tokens_is_met_exactly(n: int, rate: float) -> None:
    counts = {int(choose(n, rate, CounterRng(key)).sum()) for key in range(200)}
    assert counts == {round(rate * n)}


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_budget_below_one_token_masks_one(n: int) -> None:
    assert {int(choose(n, 0.15, CounterRng(key)).sum()) for key in range(100)} == {1}


@pytest.mark.parametrize(
    ("unit", "length"),
    # The largest run of a text of 60 in words of two is 8 tokens, below the budget of 9.
    [("token", 9), ("word", 60), ("ngram", 60), ("span", 60), ("span", 400)],
)
def test_the_share_in_whole_units_is_exact_in_expectation(unit: str, length: int) -> None:
    """`mask_rate` promises the share "exact in expectation, at least one token"."""
    piece = make_piece([50] * length, words=range(0, length, 2))
    masks = noise.mask([piece] * 4000, MaskingConfig(unit=unit), V, CounterRng("exact", unit))
    assert_mean([len(masked.places) for masked in masks], 0.15 * length)


def test_every_token_is_equally_likely_to_be_chosen() -> None:
    hits = choose_tokens(np.full(5000, 40), 0.15, CounterRng("all")).reshape(5000, 40).sum(axis=0)
    # Draws without replacement: the counts vary by (1 - 1/40) (1 - 0.15) of the independent case.
    assert np.abs(hits - 750).max() < 4.5 * np.sqrt(750 * 0.85)


@pytest.mark.parametrize("unit", UNITS)
def test_a_single_token_is_masked(unit: str) -> None:
    _, chosen = mask(make_piece([50]), MaskingConfig(unit=unit), CounterRng(0))
    assert chosen.tolist() == [True]


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
    config = MaskingConfig(mask_replace_prob=shares[0], random_replace_prob=shares[1])
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
    config = MaskingConfig(mask_replace_prob=0.0, random_replace_prob=1.0)
    corrupted = corrupt_all(tokens, config, "ids")
    assert corrupted.min() == V.ordinary[0]
    assert_fits(np.bincount(corrupted)[V.ordinary[0] :], np.ones(len(V.ordinary)))


def test_random_ids_pass_over_reserved_ids_anywhere() -> None:
    scattered = V.model_copy(update={"mask": 150, "reserved": [0, 7, 8, 150, 199]})
    tokens = np.full(100_000, 40)
    config = MaskingConfig(mask_replace_prob=0.0, random_replace_prob=1.0)
    drawn = np.bincount(corrupt_all(tokens, config, "ids", scattered), minlength=200)
    assert drawn[[0, 7, 8, 150, 199]].sum() == 0
    assert_fits(np.delete(drawn, [0, 7, 8, 150, 199]), np.ones(195))


def test_the_replacement_does_not_depend_on_the_place() -> None:
    """The kinds of replacement of neighboring tokens are independent of each other."""
    tokens = np.full(60_000, 40)
    corrupted = corrupt_all(tokens, MaskingConfig(), "pairs")
    masked = (corrupted == V.mask).astype(int)
    pairs = np.bincount(2 * masked[::2] + masked[1::2], minlength=4)
    assert_fits(pairs, [0.04, 0.16, 0.16, 0.64])


@pytest.mark.parametrize(
    ("shares", "expected"), [((1.0, 0.0), {V.mask}), ((0.0, 1e-12), {40}), ((0.9, 0.1), None)]
)
def test_extreme_shares(shares: tuple[float, float], expected: set[int] | None) -> None:
    tokens = np.full(2000, 40)
    config = MaskingConfig(mask_replace_prob=shares[0], random_replace_prob=shares[1])
    corrupted = corrupt_all(tokens, config, "all")
    if expected is not None:
        assert set(corrupted.tolist()) == expected
    else:
        assert (corrupted == 40).sum() < 10  # by chance alone, never as "kept"


@given(some_pieces, configs, keys)
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
def test_distinct_windows_get_distinct_masks(unit: str) -> None:
    """No two of 200 windows of the same text are masked alike."""
    piece, config = random_piece(500, 3), MaskingConfig(unit=unit)
    masks = {
        tuple(mask(piece, config, CounterRng(0, "train", 0, window, "mlm"))[0].tolist())
        for window in range(200)
    }
    assert len(masks) == 200
