"""Masked diffusion: its loss is the bound that it is said to be, by enumeration and by draws."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megapt.data import Example, Window
from megapt.objectives import Objective
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, windows

V = VOCABULARY
N, FIRST, WORDS = 3, 50, 4
TEXT = (2, 0, 3)
Subset = tuple[int, ...]
Denoiser = Callable[[int, Subset], float]
"""(place, masked places) -> probability of the right token there, given the others."""


def joint_denoiser(joint: np.ndarray) -> Denoiser:
    """The exact conditionals of a distribution over texts."""

    def probability(place: int, hidden: Subset) -> float:
        seen = joint[tuple(slice(None) if t in hidden else TEXT[t] for t in range(N))]
        others = tuple(axis for axis, t in enumerate(hidden) if t != place)
        marginal = seen.sum(axis=others)
        return float(marginal[TEXT[place]] / marginal.sum())

    return probability


def any_denoiser(seed: int) -> Denoiser:
    """A model whose conditionals belong to no one distribution, as those of a network."""

    @cache
    def probability(place: int, hidden: Subset) -> float:
        logits = np.random.default_rng([seed, place, *hidden]).normal(size=WORDS)
        shares = np.exp(logits)
        return float(shares[TEXT[place]] / shares.sum())

    return probability


def window_of(*lengths: int) -> Window:
    return Window(0, 0, tuple(random_piece(n, 3, document=i) for i, n in enumerate(lengths)))


def example_of_text(objective: Objective, key: int) -> Example:
    piece = make_piece([FIRST + word for word in TEXT])
    [example] = examples_of(objective, Window(0, 0, (piece,)), key)
    return example


def hidden_in(example: Example) -> Subset:
    return tuple((example.targets["tokens"].positions - 1).tolist())


def nats(example: Example, denoiser: Denoiser) -> float:
    """The example's weighted loss, in all."""
    target, hidden = example.targets["tokens"], hidden_in(example)
    assert target.weights is not None
    return float(
        sum(
            -weight * np.log(denoiser(place, hidden))
            for place, weight in zip(hidden, target.weights.tolist(), strict=True)
        )
    )


def over_orders(denoiser: Denoiser) -> float:
    """The mean over the orders of writing of -log P(text)."""
    orders = list(permutations(range(N)))
    written = [
        -np.log(denoiser(place, tuple(sorted(order[at:]))))
        for order in orders
        for at, place in enumerate(order)
    ]
    return float(np.sum(written)) / len(orders)


SUBSETS = [subset for size in range(1, N + 1) for subset in combinations(range(N), size)]


@cache
def every_example() -> dict[Subset, Example]:
    """An example of each set of masked tokens, as the objective draws it."""
    objective = build("diffusion")
    found = [example_of_text(objective, key) for key in range(300)]
    return {hidden_in(example): example for example in found}


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_loss_is_the_mean_over_all_orders(seed: int) -> None:
    assert set(every_example()) == set(SUBSETS)
    denoiser = any_denoiser(seed)
    expected = sum(
        nats(every_example()[hidden], denoiser) / N / comb(N, len(hidden)) for hidden in SUBSETS
    )
    assert expected == pytest.approx(over_orders(denoiser), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_true_conditionals_it_is_the_negative_log_likelihood(seed: int) -> None:
    joint = np.random.default_rng(seed).dirichlet(np.ones(WORDS**N)).reshape([WORDS] * N)
    expected = sum(
        nats(every_example()[hidden], joint_denoiser(joint)) / N / comb(N, len(hidden))
        for hidden in SUBSETS
    )
    assert expected == pytest.approx(-np.log(joint[TEXT]), abs=1e-12)


@pytest.mark.parametrize("compat", [None, "llada", "mdlm"])
def test_drawn_losses_have_their_expectation(compat: str | None) -> None:
    """Of independent tokens that cost c nats each: n c, but MDLM masks too little by 1e-3."""
    objective = build("diffusion", compat=compat)
    drawn = [nats(example_of_text(objective, key), lambda *_: 0.1) for key in range(6000)]
    share = 1 - 1e-3 if compat == "mdlm" else 1
    assert_mean(np.array(drawn), -share * N * np.log(0.1))


def test_drawn_losses_of_a_model_have_the_mean_over_all_orders() -> None:
    objective, denoiser = build("diffusion"), any_denoiser(1)
    drawn = [nats(example_of_text(objective, key), denoiser) for key in range(6000)]
    assert_mean(np.array(drawn), over_orders(denoiser))


@pytest.mark.parametrize("compat", ["llada", "mdlm"])
def test_drawn_losses_of_a_compatible_mask_have_their_integral(compat: str) -> None:
    """The mean over t of (1/t) sum over the subsets; polynomials, so Gauss-Legendre is exact."""
    nodes, shares = np.polynomial.legendre.leggauss(8)
    least = 1e-3
    rates = least + (1 - least) * (nodes + 1) / 2
    chances = rates * (1 - least) if compat == "mdlm" else rates
    objective, denoiser = build("diffusion", compat=compat), any_denoiser(1)
    expected = sum(
        -np.log(denoiser(place, hidden))
        * (chances ** len(hidden) * (1 - chances) ** (N - len(hidden)) / rates * shares / 2).sum()
        for hidden in SUBSETS
        for place in hidden
    )
    drawn = [nats(example_of_text(objective, key), denoiser) for key in range(6000)]
    assert_mean(np.array(drawn), float(expected))
    # Both are the bound, but for the rates below 1e-3 that they leave out.
    assert expected == pytest.approx(over_orders(denoiser), rel=3e-3)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_count_is_equally_likely_for_every_text_of_a_window(place: int) -> None:
    objective, window = build("diffusion"), window_of(7, 5, 12)
    n = len(window.pieces[place].tokens)
    counts = np.zeros(n + 1)
    for key in range(3000):
        target = examples_of(objective, window, key)[place].targets["tokens"]
        counts[len(target.labels)] += 1
    assert counts[0] == 0
    assert_fits(counts[1:], np.ones(n))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_subset_of_a_count_is_equally_likely(count: int) -> None:
    objective, window = build("diffusion"), window_of(5)
    found = [hidden_in(examples_of(objective, window, key)[0]) for key in range(4000)]
    subsets = list(combinations(range(5), count))
    assert_fits([found.count(subset) for subset in subsets], np.ones(len(subsets)))


@given(st.integers(1, 40), keys)
def test_the_shares_of_a_window_are_spread_evenly(n: int, key: int) -> None:
    """n texts of n tokens: each count from 1 to n occurs once."""
    examples = examples_of(build("diffusion"), window_of(*[n] * n), key)
    counts = sorted(len(example.targets["tokens"].labels) for example in examples)
    assert counts == list(range(1, n + 1))


@pytest.mark.parametrize("compat", ["llada", "mdlm"])
def test_compatible_masks_fall_on_each_token_by_itself(compat: str) -> None:
    """Of n tokens, masked at a uniform rate, 0 to n are hidden with equal chance (nearly)."""
    objective, window = build("diffusion", compat=compat), window_of(6)
    counts, shares = np.zeros(7), []
    for key in range(4000):
        [example] = examples_of(objective, window, key)
        target = example.targets["tokens"]
        assert target.size == 6
        counts[len(target.labels)] += 1
        shares.append(len(target.labels) / 6)
    assert_fits(counts, np.ones(7))
    assert_mean(np.array(shares), build("diffusion", compat=compat).cost(6).targets / 6)


@pytest.mark.parametrize(("compat", "chance"), [("llada", 1.0), ("mdlm", 1 - 1e-3)])
def test_compatible_masks_are_weighted_by_their_rate(compat: str, chance: float) -> None:
    """At rate t, of weight 1 / t, a share t is hidden; in MDLM's code (1 - 1e-3) t."""
    objective, window = build("diffusion", compat=compat), window_of(2000)
    residues = []
    for key in range(600):
        target = examples_of(objective, window, key)[0].targets["tokens"]
        if target.weights is not None and len(target.weights):
            residues.append(len(target.labels) / 2000 - chance / float(target.weights[0]))
    assert len(residues) > 590
    assert_mean(np.array(residues), 0)


def test_mdlm_draws_the_rates_of_a_window_from_equal_parts() -> None:
    objective = build("diffusion", compat="mdlm")
    for key in range(20):
        examples = examples_of(objective, window_of(*[60] * 10), key)
        rates = [float(1 / e.targets["tokens"].weights[0]) for e in examples[1:]]  # type: ignore[index]
        parts = (np.array(rates) - 1e-3) / (1 - 1e-3) * 10
        assert np.floor(parts).tolist() == list(range(1, 10))


@given(windows, keys, st.sampled_from([None, "mdlm", "llada"]))
def test_labels_put_back_give_the_text_of_every_piece(
    window: Window, key: int, compat: str | None
) -> None:
    examples = examples_of(build("diffusion", compat=compat), window, key)
    for example, piece in zip(examples, window.pieces, strict=True):
        target, tokens = example.targets["tokens"], example.tokens.copy()
        assert (tokens == V.mask).sum() == len(target.labels)
        tokens[target.positions] = target.labels
        assert tokens.tolist() == [V.cls, *piece.tokens.tolist(), V.sep]


@given(windows, keys, st.sampled_from([None, "mdlm", "llada"]))
def test_the_losses_are_weighted_to_a_mean_over_the_text(
    window: Window, key: int, compat: str | None
) -> None:
    examples = examples_of(build("diffusion", compat=compat), window, key)
    for example, piece in zip(examples, window.pieces, strict=True):
        target = example.targets["tokens"]
        assert target.size == len(piece.tokens)
        assert target.weights is not None
        assert len(target.weights) == len(target.labels)
        if compat is None:
            assert len(target.labels) > 0
            assert target.weights.sum() == pytest.approx(target.size, abs=1e-9)
        elif len(target.labels):
            assert len(set(target.weights.tolist())) == 1
            assert 1 <= target.weights[0] <= 1000


@given(windows, keys)
def test_every_piece_has_positions_from_0_and_one_segment(window: Window, key: int) -> None:
    for example in examples_of(build("diffusion"), window, key):
        assert example.positions.tolist() == list(range(len(example)))
        assert not example.segments.any()
        assert example.visible.all()


def test_narrow_ids_stay_narrow() -> None:
    piece = make_piece([50, 51])
    narrow = Window(0, 0, (type(piece)(**{**vars(piece), "tokens": piece.tokens.astype("u2")}),))
    [example] = examples_of(build("diffusion"), narrow, 0)
    assert example.tokens.dtype == example.targets["tokens"].labels.dtype == np.uint16
    assert narrow.pieces[0].tokens.tolist() == [50, 51]


@given(st.integers(1, 60))
@settings(max_examples=10)
def test_what_a_text_costs(n: int) -> None:
    objective = build("diffusion")
    counts = [
        len(examples_of(objective, window_of(n), key)[0].targets["tokens"].labels)
        for key in range(400)
    ]
    cost = objective.cost(n)
    assert cost.positions == n + 2
    assert_mean(np.array(counts), cost.targets, sigmas=5)


def test_masks_of_a_text_are_asked_where_they_stand() -> None:
    example = build("diffusion").masked(np.array([50, V.mask, 51, V.mask]))
    assert example is not None
    assert example.tokens.tolist() == [V.cls, 50, V.mask, 51, V.mask, V.sep]
    assert example.targets["tokens"].positions.tolist() == [2, 4]
    assert example.targets["tokens"].labels.tolist() == [0, 0]
    assert example.visible.all()


def test_one_token_head() -> None:
    heads = build("diffusion").heads
    assert [(head.name, head.kind, head.weight) for head in heads] == [("tokens", "token", 1)]


def test_the_settings_without_a_preset_are_those_of_the_preset() -> None:
    assert type(build("diffusion").config)() == build("diffusion").config
