"""Texts behind a mask: tokens are chosen and replaced. Shared by the masking objectives."""

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
    """Tokens that were chosen, rising, int64 [k]; k >= 1, under `compat` also 0."""
    labels: Ints
    """What stood there, in the type of the text [k]."""


def corrupt(
    tokens: Ints,
    places: Ints,
    config: MaskingConfig,
    vocabulary: Vocabulary,
    rng: CounterRng,
    *,
    ids: Ints | None = None,
    alike: Bools | None = None,
) -> Ints:
    """Replace tokens by [MASK], by a random id or by themselves.

    One draw a token decides by `mask_share` and `random_share`.

    Args:
        tokens: the text, any integer type [n]; it is not changed.
        places: the chosen tokens, int64 [k].
        config: the shares.
        vocabulary: ids of [MASK] and of the ordinary pieces.
        rng: of the window.
        ids: what random ids are drawn from, each alike; None: the ordinary pieces, so never a
            special one.
        alike: tokens that go by the draw of the one before them, bool [k], if any.

    Returns:
        The text with those tokens replaced, in its own type [n].
    """
    ids = vocabulary.ordinary if ids is None else ids
    u = rng.uniform(len(places))
    if alike is not None:
        u = u[np.maximum.accumulate(np.where(alike, 0, np.arange(len(u))))]
    randoms = ids[rng.integers(0, len(ids), len(places))]
    to_random = u < config.mask_share + config.random_share
    new = np.where(to_random, randoms, tokens[places])
    corrupted: Ints = tokens.copy()
    corrupted[places] = np.where(u < config.mask_share, vocabulary.mask, new)
    return corrupted


def mask(
    texts: Sequence[MaskableText],
    config: MaskingConfig,
    vocabulary: Vocabulary,
    rng: CounterRng,
    rate: float | None = None,
    specials: Sequence[int] | int = 2,
) -> list[Masked]:
    """Mask each text by itself, all of them at once.

    Args:
        texts: of a window.
        config: settings of the mask.
        vocabulary: ids of the special and of the ordinary pieces.
        rng: of the window.
        rate: share of the tokens; None: `mask_rate`.
        specials: special tokens that will stand around each text, where `compat` counts them.
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
        ids, alike = rule.ids(vocabulary, tokens), None
        if rule.spans_alike:
            alike = (np.diff(places, prepend=-2) == 1) & ~np.isin(places, starts)
        corrupted = corrupt(tokens, places, config, vocabulary, rng, ids=ids, alike=alike)
    labels = tokens[places]
    cuts = places.searchsorted(starts).tolist()
    return [
        Masked(corrupted[start:stop], places[first:last] - start, labels[first:last])
        for (start, stop), (first, last) in zip(pairwise(starts), pairwise(cuts), strict=True)
    ]


class MaskingObjective(Objective):
    """Base of the objectives that mask: the share of masked tokens over the run."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        if config.final_mask_rate is not None and context.steps is None:
            raise ObjectiveError(
                f"'{self.name}' goes from mask_rate {config.mask_rate} to final_mask_rate "
                f"{config.final_mask_rate} over the planned steps, which a budget in raw tokens "
                f"alone tells; plan in raw tokens or leave final_mask_rate out"
            )

    @property
    def final_rate(self) -> float:
        """The rate at the end of the run."""
        final = self.config.final_mask_rate
        return float(self.config.mask_rate if final is None else final)

    def rate(self, window: Window) -> float:
        """Return the share of the tokens of `window` that is masked.

        In step s of S, from 0 to S - 1, it is r + (f - r) * s / (S - 1), from r = `mask_rate` to
        f = `final_mask_rate`; for held-out text f.
        """
        first, final, steps = float(self.config.mask_rate), self.final_rate, self.context.steps
        if window.step is None or steps is None or window.step >= steps - 1 > 0:
            return final
        return first + (final - first) * window.step / max(1, steps - 1)
