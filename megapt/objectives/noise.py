"""Masked texts: tokens are chosen and replaced. Shared by the masking objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from megapt.data import CounterRng, Vocabulary, Window
from megapt.data.example import Bools, Ints
from megapt.objectives.base import Context, Objective, ObjectiveError
from megapt.objectives.masking import MaskingConfig, choose
from megapt.objectives.reference_masks import RULES, Marks

__all__ = ["MaskableText", "Masked", "MaskingConfig", "MaskingObjective", "corrupt", "mask"]


class MaskableText(Protocol):
    """A text that can be masked: a piece, or anything else with tokens and word marks."""

    @property
    def tokens(self) -> Ints:
        """Token ids, any integer type [n], n >= 1."""

    @property
    def word_starts(self) -> Bools:
        """Whether a word starts at each token, bool [n]; a text begins with a word."""


@dataclass(frozen=True)
class Masked:
    """A masked text."""

    tokens: Ints
    """The corrupted text, in the integer type of the original [n]."""
    places: Ints
    """Places of the chosen tokens, ascending, int64 [k]; k >= 1, with `compat` also 0."""
    labels: Ints
    """The original tokens there, in the type of the text [k]."""


def corrupt(
    tokens: Ints,
    places: Ints,
    config: MaskingConfig,
    vocabulary: Vocabulary,
    rng: CounterRng,
    *,
    ids: Ints | None = None,
    same_draw: Bools | None = None,
) -> Ints:
    """Replace the chosen tokens by [MASK], by a random id or by themselves.

    One draw per token decides, by `mask_replace_prob` and `random_replace_prob`.

    Args:
        tokens: the text, any integer type [n]; it is not changed.
        places: places of the chosen tokens, int64 [k].
        config: the shares.
        vocabulary: ids of [MASK] and of the ordinary pieces.
        rng: random numbers of the window.
        ids: ids that random ids are drawn from, uniformly; None: those of the ordinary pieces,
            which are never special.
        same_draw: chosen tokens that use the draw of the previous one, bool [k]; None: none.

    Returns:
        A copy of the text with these tokens replaced, in its own type [n].
    """
    ids = vocabulary.ordinary if ids is None else ids
    u = rng.uniform(len(places))
    if same_draw is not None:
        u = u[np.maximum.accumulate(np.where(same_draw, 0, np.arange(len(u))))]
    randoms = ids[rng.integers(0, len(ids), len(places))]
    to_random = u < config.mask_replace_prob + config.random_replace_prob
    new = np.where(to_random, randoms, tokens[places])
    corrupted: Ints = tokens.copy()
    corrupted[places] = np.where(u < config.mask_replace_prob, vocabulary.mask, new)
    return corrupted


def mask(
    texts: Sequence[MaskableText],
    config: MaskingConfig,
    vocabulary: Vocabulary,
    rng: CounterRng,
    rate: float | None = None,
    specials: Sequence[int] | int = 2,
) -> list[Masked]:
    """Mask each text independently, all texts in one pass.

    Args:
        texts: texts of a window.
        config: settings of the mask.
        vocabulary: ids of the special and of the ordinary pieces.
        rng: random numbers of the window.
        rate: share of the tokens; None: `mask_rate`.
        specials: number of special tokens around each text, for the `compat` rules that count them.

    Returns:
        The masked texts, in the order of `texts`.
    """
    if not texts:
        return []
    rate = config.mask_rate if rate is None else rate
    tokens = np.concatenate([text.tokens for text in texts])
    lengths = [len(text.tokens) for text in texts]
    starts, sizes = list(accumulate(lengths, initial=0)), np.array(lengths)
    word_starts = np.concatenate([text.word_starts for text in texts])
    if config.compat is None:
        places = np.flatnonzero(choose(word_starts, sizes, config, rate, rng))
        corrupted = corrupt(tokens, places, config, vocabulary, rng)
    else:
        rule = RULES[config.compat]
        marks = Marks(word_starts, sizes, np.asarray(specials))
        places = np.flatnonzero(rule.choose(marks, config, rate, rng))
        ids, same_draw = rule.ids(vocabulary, tokens), None
        if rule.spans_share_draw:
            same_draw = (np.diff(places, prepend=-2) == 1) & ~np.isin(places, starts)
        corrupted = corrupt(tokens, places, config, vocabulary, rng, ids=ids, same_draw=same_draw)
    labels = tokens[places]
    cuts = places.searchsorted(starts).tolist()
    return [
        Masked(corrupted[start:stop], places[first:last] - start, labels[first:last])
        for (start, stop), (first, last) in zip(pairwise(starts), pairwise(cuts), strict=True)
    ]


class MaskingObjective(Objective):
    """Base class of the objectives that mask: the mask rate over the run."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        if config.final_mask_rate is not None and context.steps is None:
            raise ObjectiveError(
                f"'{self.name}' goes from mask_rate {config.mask_rate} to final_mask_rate "
                f"{config.final_mask_rate} over the planned steps, which are known only for a "
                f"budget in raw tokens; use such a budget or remove final_mask_rate"
            )

    @property
    def final_rate(self) -> float:
        """The mask rate at the end of the run."""
        final = self.config.final_mask_rate
        return float(self.config.mask_rate if final is None else final)

    def rate(self, window: Window) -> float:
        """Return the share of the tokens of `window` to mask.

        In step s of S, counted from 0, it is r + (f - r) * s / (S - 1), with r = `mask_rate` and
        f = `final_mask_rate`. For the validation set it is f.
        """
        first, final, steps = float(self.config.mask_rate), self.final_rate, self.context.steps
        if window.step is None or steps is None or window.step >= steps - 1 > 0:
            return final
        return first + (final - first) * window.step / max(1, steps - 1)
