"""Settings of the mask, and which tokens it chooses: whole units up to an exact budget."""

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
    """Share at the end of the run, reached in a straight line over its steps; null: `mask_rate`."""
    unit: Unit = "token"
    """What is masked as a whole: a token, a word, a run of one to a few words (Lan et al. 2020) or
    of several (Joshi et al. 2020)."""
    max_ngram: Longest = 3
    """`ngram`: a run of l words is as likely as 1 / l, up to this length."""
    span_p: Rate = 0.2
    """`span`: lengths in words are geometric with this parameter, cut at `max_span_length`."""
    max_span_length: Longest = 10
    mask_share: Share = 0.8
    """Share of the masked tokens that becomes [MASK]."""
    random_share: Share = 0.1
    """Share that becomes a random ordinary token; the rest stays as it is."""
    compat: Compat | None = None
    """Choose and replace tokens as this reference does, instead of by our rule."""
    max_predictions: Annotated[int, Field(gt=0)] | None = None
    """`compat=bert`: most tokens that are masked in a text; null: no limit."""

    @model_validator(mode="after")
    def _fits(self) -> MaskingConfig:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share} "
                f"should sum to 1 at most"
            )
        if not self.mask_share + self.random_share:
            raise ValueError(
                "mask_share and random_share are both 0: every chosen token would stay in the "
                "input, which shows the answers; one of them should be above 0"
            )
        if self.compat and self.unit not in _UNITS[self.compat]:
            raise ValueError(
                f"compat={self.compat} masks by {' or '.join(_UNITS[self.compat])}; set unit to "
                f"that instead of {self.unit}"
            )
        if self.max_predictions is not None and self.compat != "bert":
            raise ValueError("max_predictions is a limit of compat=bert; leave it out or set that")
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
    """Draw a length l, as likely as `weights[l - 1]`, for each limit.

    Args:
        weights: of the lengths 1, 2, ..., float64 [lengths].
        longest: the largest length that each draw may give, from 1 to lengths, int64 [n].

    Returns:
        The lengths, int64 [n].
    """
    below = weights.cumsum()
    drawn = 1 + below.searchsorted(rng.uniform(len(longest)) * below[longest - 1], side="right")
    cut: Ints = np.minimum(drawn, longest)  # a draw next to 1 may round up to the limit's own sum
    return cut


def words(word_starts: Bools, sizes: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the words of some texts end to end, T tokens in all.

    Args:
        word_starts: bool [T]; each text begins with a word.
        sizes: tokens of each text, at least 1, int64 [texts].

    Returns:
        The number of the word of each token, int64 [T], rising from 0 over all texts; of each text
        the first word and the number of its words, int64 [texts].
    """
    word_of: Ints = word_starts.cumsum() - 1
    first_words = word_of[firsts(sizes)]
    return word_of, first_words, np.diff(first_words, append=word_of[-1] + 1)


def runs(
    word_starts: Bools, sizes: Ints, config: MaskingConfig, rate: float, rng: CounterRng
) -> Ints:
    """Tile texts with words, or with runs of words of random lengths.

    Args:
        word_starts: of the texts end to end, bool [T].
        sizes: tokens of each text, int64 [texts].
        config: the unit, and the lengths of runs.
        rate: share of the tokens that is to be masked.
        rng: of the window; lengths are drawn.

    Returns:
        The number of the run of each token, int64 [T], rising from 0 over all texts.
    """
    word_of, first_words, counts = words(word_starts, sizes)
    if config.unit == "word":
        return word_of
    weights = config.lengths
    # A run longer than the budget could only be masked in excess of it.
    longest = np.clip((rate * counts).astype(np.int64), 1, len(weights))
    drawn = draw_lengths(weights, longest.repeat(counts), rng)
    # A run begins where those drawn before it in its text end.
    ends = drawn.cumsum()
    ends -= (ends[first_words] - drawn[first_words]).repeat(counts)
    begins = np.zeros(len(drawn), dtype=np.bool_)
    begins[first_words] = True
    begins[(first_words.repeat(counts) + ends)[ends < counts.repeat(counts)]] = True
    run_of: Ints = begins.cumsum() - 1
    return run_of[word_of]


def choose_runs(run_of: Ints, sizes: Ints, rate: float, rng: CounterRng) -> Bools:
    """Choose whole runs that hold `rate` of the tokens of each text.

    The runs of a text are taken in random order while they fit its budget of rate * n tokens. The
    one that crosses it is taken with a probability equal to the share of it that still fits, so
    that the expected number of chosen tokens is the budget itself. At least one run is chosen.

    Args:
        run_of: run of each token, int64 [T], rising from 0; no run reaches into another text.
        sizes: tokens of each text, at least 1, int64 [texts].
        rate: share of the tokens.
        rng: of the window.

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
    """Choose `rate` of the tokens of each text: `choose_runs` where every token is a run.

    A budget of rate * n tokens is rounded up with the probability of its fraction. The first tokens
    of a random order are those of the smallest draws; one in some 10^9 texts has two draws that are
    equal where the order is cut, and one token more.

    Args:
        sizes: tokens of each text, at least 1, int64 [texts].
        rate: share of the tokens.
        rng: of the window.

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
    """Choose the tokens to be masked, bool [T], by `config.unit`; arguments as for `runs`."""
    if config.unit == "token":
        return choose_tokens(sizes, rate, rng)
    return choose_runs(runs(word_starts, sizes, config, rate, rng), sizes, rate, rng)
