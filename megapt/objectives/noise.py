"""Which tokens are masked, and what stands in their place. Shared by the masking objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from megapt.config import Section
from megapt.data import CounterRng, Vocabulary
from megapt.data.example import Bools, Ints

Share = Annotated[float, Field(ge=0, le=1)]


class MaskingConfig(Section):
    """Settings of the mask (Devlin et al. 2019, section 3.1 and appendix A.1)."""

    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the text tokens that is masked: exact in expectation, at least one token."""
    unit: Literal["token", "word", "span"] = "token"
    """What is masked as a whole: a token, a word, or a run of words (Joshi et al. 2020)."""
    span_p: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """`span`: lengths in words are geometric with this parameter, cut at `span_longest` and, in a
    short text, at the words that `mask_rate` allows."""
    span_longest: Annotated[int, Field(gt=0)] = 10
    mask_share: Share = 0.8
    """Share of the masked tokens that becomes [MASK]."""
    random_share: Share = 0.1
    """Share that becomes a random ordinary token; the rest stays as it is."""

    @model_validator(mode="after")
    def _shares(self) -> MaskingConfig:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share} "
                f"should sum to 1 at most"
            )
        return self


def _span_lengths(n: int, p: float, longest: int, rng: CounterRng) -> Ints:
    """Return `n` lengths with P(l) proportional to (1-p)^(l-1) p for 1 <= l <= longest."""
    u = rng.uniform(n)
    tail = 1.0 - (1.0 - p) ** longest
    lengths = 1 + np.floor(np.log1p(-u * tail) / np.log1p(-p)).astype(np.int64)
    cut: Ints = np.minimum(lengths, longest)
    return cut


def units(word_starts: Bools, config: MaskingConfig, rng: CounterRng) -> Ints:
    """Return for each token the number of the unit that it belongs to, int64 [n], rising from 0."""
    if config.unit == "token":
        return np.arange(len(word_starts))
    words: Ints = word_starts.cumsum() - 1
    if config.unit == "word":
        return words
    count = int(words[-1]) + 1
    # A span longer than the budget could only be masked in excess of it.
    longest = max(1, min(config.span_longest, int(config.mask_rate * count)))
    ends = _span_lengths(count, config.span_p, longest, rng).cumsum()
    return ends.searchsorted(words, side="right")


def choose(unit_of: Ints, rate: float, rng: CounterRng) -> Bools:
    """Choose whole units that hold `rate` of the tokens.

    Units are taken in random order while they fit the budget of rate * n tokens. The unit that
    crosses it is taken with a probability equal to the share of it that still fits, so that the
    expected number of chosen tokens is the budget itself. At least one unit is chosen.

    Args:
        unit_of: unit of each token, int64 [n], n >= 1.
        rate: share of the tokens.

    Returns:
        The chosen tokens, bool [n].
    """
    sizes = np.bincount(unit_of)
    order = rng.permutation(len(sizes))
    total = sizes[order].cumsum()
    budget = rate * len(unit_of)
    whole = int(total.searchsorted(budget, side="right"))
    if whole < len(order):
        room = budget - (total[whole - 1] if whole else 0)
        whole += rng.chance(float(room / sizes[order[whole]]))
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[order[: max(whole, 1)]] = True
    return chosen[unit_of]


def choose_tokens(n: int, rate: float, rng: CounterRng) -> Bools:
    """Choose `rate` of `n` tokens, bool [n]: `choose` where every token is a unit, but unsorted.

    The first units of a random order are those of the smallest draws.
    """
    draws = rng.bits(n)
    budget = rate * n
    whole = int(budget)
    whole += rng.chance(budget - whole)
    last = max(whole, 1) - 1
    chosen: Bools = draws <= np.partition(draws, last)[last]
    return chosen


class Text(Protocol):
    """What can be masked: a piece, or anything else with tokens and marks."""

    @property
    def tokens(self) -> Ints:
        """Any integer type [n], n >= 1."""

    @property
    def word_starts(self) -> Bools:
        """bool [n]; a text begins with a word."""


@dataclass(frozen=True)
class Masked:
    """A text behind its mask."""

    tokens: Ints
    """The text corrupted, in its own integer type [n]."""
    places: Ints
    """Tokens that were chosen, rising, int64 [k], k >= 1."""
    labels: Ints
    """What stood there, in the type of the text [k]."""


def _chosen(word_starts: Bools, config: MaskingConfig, rng: CounterRng) -> Bools:
    if config.unit == "token":
        return choose_tokens(len(word_starts), config.mask_rate, rng)
    return choose(units(word_starts, config, rng), config.mask_rate, rng)


def corrupt(
    tokens: Ints, places: Ints, config: MaskingConfig, vocabulary: Vocabulary, rng: CounterRng
) -> Ints:
    """Replace tokens by [MASK], by a random ordinary id or by themselves.

    One draw a token decides by `mask_share` and `random_share`; random ids are uniform over the
    ordinary pieces, so never a special one.

    Args:
        tokens: the text, any integer type [n]; it is not changed.
        places: the chosen tokens, int64 [k].

    Returns:
        The text with those tokens replaced, in its own type [n].
    """
    u = rng.uniform(len(places))
    ordinary = vocabulary.ordinary
    randoms = ordinary[rng.integers(0, len(ordinary), len(places))]
    to_random = u < config.mask_share + config.random_share
    new = np.where(to_random, randoms, tokens[places])
    corrupted: Ints = tokens.copy()
    corrupted[places] = np.where(u < config.mask_share, vocabulary.mask, new)
    return corrupted


def mask(
    texts: Sequence[Text], config: MaskingConfig, vocabulary: Vocabulary, rng: CounterRng
) -> list[Masked]:
    """Mask each text by itself.

    The tokens are chosen in one text after another, and replaced in all of them at once: a call
    of numpy costs as much for a short text as for a window.
    """
    if not texts:
        return []
    tokens = np.concatenate([text.tokens for text in texts])
    chosen = np.concatenate([_chosen(text.word_starts, config, rng) for text in texts])
    places = np.flatnonzero(chosen)
    corrupted, labels = corrupt(tokens, places, config, vocabulary, rng), tokens[places]
    starts = np.cumsum([0, *(len(text.tokens) for text in texts)])
    cuts = np.searchsorted(places, starts)
    return [
        Masked(corrupted[start:stop], places[first:last] - start, labels[first:last])
        for (start, stop), (first, last) in zip(
            pairwise(starts.tolist()), pairwise(cuts.tolist()), strict=True
        )
    ]
