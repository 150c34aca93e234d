"""Settings of the mask, and the choice of tokens: whole units up to an exact budget."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from megapt.config import Section
from megapt.data import CounterRng
from megapt.data.example import Bools, Floats, Ints
from megapt.objectives.ragged import firsts, offsets, shuffled

Rate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Longest = Annotated[int, Field(gt=0, le=1000)]
Unit = Literal["token", "word", "ngram", "span"]
Compat = Literal["bert", "huggingface", "roberta", "spanbert"]

_UNITS: dict[Compat, tuple[Unit, ...]] = {
    "bert": ("token", "word"),
    "huggingface": ("token", "word"),
    "roberta": ("token",),
    "spanbert": ("span",),
}


class MaskingConfig(Section):
    """Settings of the mask (Devlin et al. 2019, section 3.1 and appendix A.1)."""

    mask_rate: Rate = 0.15
    """Share of the text tokens that is masked: exact in expectation, at least one token."""
    final_mask_rate: Rate | None = None
    """Share at the end of the run, reached linearly over its steps; null: `mask_rate`."""
    unit: Unit = "token"
    """What is masked as a whole: a token, a word or a run of words. `ngram`: a run of one to a few
    words (Lan et al. 2020). `span`: a run of several words (Joshi et al. 2020)."""
    max_ngram: Longest = 3
    """`ngram`: longest run, in words; a run of l words has a probability proportional to 1 / l."""
    span_p: Rate = 0.2
    """`span`: parameter of the geometric length in words, truncated at `max_span_length`."""
    max_span_length: Longest = 10
    """`span`: longest run, in words."""
    mask_replace_prob: Share = 0.8
    """Share of the masked tokens that becomes [MASK]."""
    random_replace_prob: Share = 0.1
    """Share that becomes a random ordinary token; the rest is unchanged."""
    compat: Compat | None = None
    """Choose and replace tokens by the rule of this reference, instead of by the default rule."""
    max_predictions: Annotated[int, Field(gt=0)] | None = None
    """`compat=bert`: maximum number of masked tokens in a text; null: no limit."""

    @model_validator(mode="after")
    def _check_settings(self) -> MaskingConfig:
        if self.mask_replace_prob + self.random_replace_prob > 1 + 1e-9:
            raise ValueError(
                f"mask_replace_prob {self.mask_replace_prob} and random_replace_prob "
                f"{self.random_replace_prob} should sum to at most 1"
            )
        if not self.mask_replace_prob + self.random_replace_prob:
            raise ValueError(
                "mask_replace_prob and random_replace_prob are both 0: every chosen token would "
                "stay in the input, which shows the answers; one of them should be above 0"
            )
        if self.compat and self.unit not in _UNITS[self.compat]:
            raise ValueError(
                f"compat={self.compat} masks by {' or '.join(_UNITS[self.compat])}; set unit to "
                f"that instead of {self.unit}"
            )
        if self.max_predictions is not None and self.compat != "bert":
            raise ValueError(
                "max_predictions applies only to compat=bert; remove it or set compat to bert"
            )
        return self

    @property
    def lengths(self) -> Floats:
        """Weights of runs of 1, 2, ... words under `ngram` and `span`, float64 [longest]."""
        if self.unit == "ngram":
            return _ngram_weights(self.max_ngram)
        return _span_weights(self.span_p, self.max_span_length)


@lru_cache(maxsize=16)
def _ngram_weights(longest: int) -> Floats:
    weights: Floats = 1.0 / np.arange(1, longest + 1)
    return weights


@lru_cache(maxsize=16)
def _span_weights(p: float, longest: int) -> Floats:
    weights: Floats = (1.0 - p) ** np.arange(longest)
    return weights


def draw_lengths(weights: Floats, longest: Ints, rng: CounterRng) -> Ints:
    """Draw a length l for each limit, with a probability proportional to `weights[l - 1]`.

    Args:
        weights: weights of the lengths 1, 2, ..., float64 [lengths].
        longest: maximum of each draw, from 1 to lengths, int64 [n].
        rng: random numbers of the window.

    Returns:
        The lengths, int64 [n].
    """
    below = weights.cumsum()
    drawn = 1 + below.searchsorted(rng.uniform(len(longest)) * below[longest - 1], side="right")
    cut: Ints = np.minimum(drawn, longest)  # a draw close to 1 may round up to the last sum
    return cut


def words(word_starts: Bools, sizes: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the words of texts that are laid end to end, T tokens in total.

    Args:
        word_starts: where a word starts, bool [T]; each text begins with a word.
        sizes: tokens of each text, at least 1, int64 [texts].

    Returns:
        The number of the word of each token, int64 [T], counted from 0 over all texts; the first
        word of each text, int64 [texts]; the number of words of each text, int64 [texts].
    """
    word_of: Ints = word_starts.cumsum() - 1
    first_words = word_of[firsts(sizes)]
    return word_of, first_words, np.diff(first_words, append=word_of[-1] + 1)


def runs(
    word_starts: Bools, sizes: Ints, config: MaskingConfig, rate: float, rng: CounterRng
) -> Ints:
    """Divide texts into words, or into runs of words of random lengths.

    Args:
        word_starts: where a word starts in the texts end to end, bool [T].
        sizes: tokens of each text, int64 [texts].
        config: the unit, and the lengths of runs.
        rate: share of the tokens to mask.
        rng: random numbers of the window.

    Returns:
        The number of the run of each token, int64 [T], counted from 0 over all texts.
    """
    word_of, first_words, counts = words(word_starts, sizes)
    if config.unit == "word":
        return word_of
    weights = config.lengths
    # A run longer than the budget would always exceed it.
    longest = np.clip((rate * counts).astype(np.int64), 1, len(weights))
    drawn = draw_lengths(weights, longest.repeat(counts), rng)
    # A run begins where the previous run of its text ends.
    ends = drawn.cumsum()
    ends -= (ends[first_words] - drawn[first_words]).repeat(counts)
    begins = np.zeros(len(drawn), dtype=np.bool_)
    begins[first_words] = True
    begins[(first_words.repeat(counts) + ends)[ends < counts.repeat(counts)]] = True
    run_of: Ints = begins.cumsum() - 1
    return run_of[word_of]


def choose_runs(run_of: Ints, sizes: Ints, rate: float, rng: CounterRng) -> Bools:
    """Choose whole runs that hold `rate` of the tokens of each text.

    The runs of a text are taken in random order while they fit into its budget of rate * n tokens.
    The run that crosses the budget is taken with a probability equal to the share of it that still
    fits. So the expected number of chosen tokens is the budget. At least one run is chosen.

    Args:
        run_of: run of each token, int64 [T], counted from 0; no run reaches into another text.
        sizes: tokens of each text, at least 1, int64 [texts].
        rate: share of the tokens.
        rng: random numbers of the window.

    Returns:
        The chosen tokens, bool [T].
    """
    lengths = np.bincount(run_of)
    first_runs = run_of[firsts(sizes)]
    counts = np.diff(first_runs, append=len(lengths))
    order = shuffled(counts, rng)
    ordered = lengths[order]
    total = ordered.cumsum() - firsts(sizes).repeat(counts)
    budget = rate * sizes
    whole = np.add.reduceat(total <= budget.repeat(counts), first_runs, dtype=np.int64)
    crossing = first_runs + np.minimum(whole, counts - 1)
    room = budget - total[crossing] + ordered[crossing]
    whole += rng.uniform(len(sizes)) < room / ordered[crossing]
    chosen = np.zeros(len(lengths), dtype=np.bool_)
    chosen[order[offsets(counts) < np.maximum(whole, 1).repeat(counts)]] = True
    return chosen[run_of]


def choose_tokens(sizes: Ints, rate: float, rng: CounterRng) -> Bools:
    """Choose `rate` of the tokens of each text, like `choose_runs` with every token as a run.

    A budget of rate * n tokens is rounded up with the probability of its fraction. The tokens with
    the smallest draws are chosen. In about one of 10^9 texts, two draws at the limit are equal, and
    one token more is chosen.

    Args:
        sizes: tokens of each text, at least 1, int64 [texts].
        rate: share of the tokens.
        rng: random numbers of the window.

    Returns:
        The chosen tokens, bool [sum of sizes].
    """
    draws = rng.bits(int(sizes.sum())) >> 24
    draws |= (np.arange(len(sizes), dtype=np.uint64) << 40).repeat(sizes)
    counts = np.maximum(1, np.ceil(rate * sizes - rng.uniform(len(sizes))).astype(np.int64))
    last = np.sort(draws)[firsts(sizes) + counts - 1]
    chosen: Bools = draws <= last.repeat(sizes)
    return chosen


def choose(
    word_starts: Bools, sizes: Ints, config: MaskingConfig, rate: float, rng: CounterRng
) -> Bools:
    """Choose the tokens to mask by `config.unit`, bool [T]; the arguments are those of `runs`."""
    if config.unit == "token":
        return choose_tokens(sizes, rate, rng)
    return choose_runs(runs(word_starts, sizes, config, rate, rng), sizes, rate, rng)
