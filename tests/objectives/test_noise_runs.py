"""Settings of the mask, and the runs of words that are masked as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from megapt.data import CounterRng, Piece
from megapt.objectives import masking
from megapt.objectives.masking import MaskingConfig, draw_lengths
from tests.chance import assert_fits
from tests.objectives.noising import configs, runs, some_pieces, word_numbers
from tests.windows import keys, make_piece, pieces


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_rate": 0.0},
        {"mask_rate": 1.0},
        {"mask_rate": float("nan")},
        {"final_mask_rate": 0.0},
        {"final_mask_rate": 1.0},
        {"unit": "sentence"},
        {"max_ngram": 0},
        {"span_p": 0.0},
        {"span_p": 1.0},
        {"max_span_length": 0},
        {"max_ngram": 1001},
        {"max_span_length": 10**11},
        {"mask_replace_prob": 1.1},
        {"random_replace_prob": -0.1},
        {"mask_replace_prob": 0.8, "random_replace_prob": 0.3},
        {"mask_replace_prob": 0.0, "random_replace_prob": 0.0},
        {"maskrate": 0.15},
        {"compat": "electra"},
        {"compat": "spanbert"},
        {"compat": "roberta", "unit": "word"},
        {"compat": "bert", "unit": "span"},
        {"max_predictions": 20},
        {"compat": "bert", "max_predictions": 0},
    ],
)
def test_settings_that_make_no_mask_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MaskingConfig(**wrong)


def test_a_reference_that_masks_other_units_says_which() -> None:
    with pytest.raises(ValidationError, match="compat=bert masks by token or word; set unit to"):
        MaskingConfig(compat="bert", unit="ngram")


def test_a_mask_that_shows_every_answer_says_so() -> None:
    with pytest.raises(ValidationError, match=r"both 0: .* shows the answers; one of them should"):
        MaskingConfig(mask_replace_prob=0, random_replace_prob=0)


@pytest.mark.parametrize("unit", ["ngram", "span"])
def test_weights_of_lengths_are_not_made_anew_for_each_window(unit: str) -> None:
    config = MaskingConfig(unit=unit, max_ngram=1000, max_span_length=1000)
    assert len(config.lengths) == 1000
    assert config.lengths is config.lengths


def test_the_defaults_are_those_of_bert() -> None:
    config = MaskingConfig()
    assert (config.mask_rate, config.mask_replace_prob, config.random_replace_prob) == (
        0.15,
        0.8,
        0.1,
    )
    assert config.unit == "token"


@given(some_pieces, configs, keys)
def test_runs_number_the_tokens_of_all_texts_from_0_on(
    texts: list[Piece], config: MaskingConfig, key: int
) -> None:
    starts = np.concatenate([text.word_starts for text in texts])
    sizes = np.array([len(text.tokens) for text in texts])
    run_of = masking.runs(starts, sizes, config, config.mask_rate, CounterRng(key))
    assert len(run_of) == sizes.sum()
    assert run_of[0] == 0
    assert set(np.diff(run_of)) <= {0, 1}
    borders = np.cumsum(sizes)[:-1]
    assert (run_of[borders] == run_of[borders - 1] + 1).all(), "a text begins with a run"


@given(pieces, keys)
def test_a_word_is_a_run(piece: Piece, key: int) -> None:
    found = runs(piece, MaskingConfig(unit="word"), CounterRng(key))
    assert found.tolist() == word_numbers(piece).tolist()


@given(pieces, keys, st.integers(1, 10), st.sampled_from(["ngram", "span"]))
def test_a_run_is_a_union_of_whole_words_and_not_too_long(
    piece: Piece, key: int, longest: int, unit: str
) -> None:
    config = MaskingConfig(unit=unit, max_span_length=longest, max_ngram=longest)
    run_of, words = runs(piece, config, CounterRng(key)), word_numbers(piece)
    budget = max(1, int(0.15 * (words[-1] + 1)))
    for word in range(words[-1] + 1):
        assert len(set(run_of[words == word])) == 1
    for run in range(run_of[-1] + 1):
        assert len(set(words[run_of == run])) <= min(longest, budget)


@pytest.mark.parametrize(("p", "longest"), [(0.2, 10), (0.3, 10), (0.05, 4), (0.9, 3), (0.5, 1)])
def test_span_lengths_follow_the_truncated_geometric_distribution(p: float, longest: int) -> None:
    weights = MaskingConfig(unit="span", span_p=p, max_span_length=longest).lengths
    lengths = draw_lengths(weights, np.full(50_000, longest), CounterRng("spans", longest))
    assert lengths.min() == 1
    assert lengths.max() == longest
    if longest > 1:
        shares = [(1 - p) ** (length - 1) * p for length in range(1, longest + 1)]
        assert_fits(np.bincount(lengths, minlength=longest + 1)[1:], shares)


@pytest.mark.parametrize(
    ("unit", "mean"),
    # Joshi et al. 2020, section 3.1: p = 0.2, cut at 10, mean 3.8. Lan et al. 2020, section 4.1:
    # p(n) = (1/n) / (1 + 1/2 + 1/3) for n <= 3, that is 6/11, 3/11 and 2/11, mean 18/11.
    [("span", 3.8), ("ngram", 18 / 11)],
)
def test_the_mean_length_is_that_of_the_paper(unit: str, mean: float) -> None:
    weights = MaskingConfig(unit=unit).lengths
    lengths = draw_lengths(weights, np.full(100_000, len(weights)), CounterRng("mean"))
    assert lengths.mean() == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize(
    ("unit", "shares"),
    [("span", [0.8**n for n in range(10)]), ("ngram", [6 / 11, 3 / 11, 2 / 11])],
)
def test_runs_of_a_text_follow_the_distribution(unit: str, shares: list[float]) -> None:
    piece = make_piece([50] * 20_000)
    lengths = np.bincount(runs(piece, MaskingConfig(unit=unit), CounterRng("text")))
    # The last one may be cut by the end of the text.
    assert_fits(np.bincount(lengths[:-1])[1:], shares)


def test_lengths_have_a_limit_of_their_own() -> None:
    """Each draw is cut, and renormalized, at its own limit."""
    weights = MaskingConfig(unit="ngram").lengths
    lengths = draw_lengths(weights, np.array([1, 2, 3] * 20_000), CounterRng("limits"))
    assert set(lengths[0::3]) == {1}
    assert_fits(np.bincount(lengths[1::3])[1:], [2 / 3, 1 / 3])
    assert_fits(np.bincount(lengths[2::3])[1:], [6 / 11, 3 / 11, 2 / 11])
