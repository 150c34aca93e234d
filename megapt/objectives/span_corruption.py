"""Span corruption (T5; Raffel et al. 2020, section 3.1.4): write the missing spans.

L = -sum_t log P(z_t | source, z_1 ... z_{t-1}),  z = <extra_id_0> span_0 <extra_id_1> span_1 ...
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from megapt.config import Section
from megapt.data import RESERVED, CounterRng, Example, Window
from megapt.data.example import Ints, concatenate
from megapt.objectives.base import Context, Cost, Objective, ObjectiveError
from megapt.objectives.ragged import Texts
from megapt.objectives.rewriting import rewriting_prompt, rewritings
from megapt.objectives.spans import Mode, divide, mode_token, noise_mask, span_counts


class SpanCorruptionConfig(Section):
    """How much of a text is noise, and how long its spans are."""

    noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that is noise, rounded to whole tokens in each text."""
    mean_span_length: Annotated[float, Field(ge=1)] = 3.0
    """Mean length of a span, in tokens."""
    mode: Mode | None = None
    """Mode token after [CLS], which says what to predict (Tay et al. 2022); null: none."""
    compat: Literal["t5"] | None = None
    """`t5`: spans are not rolled, so the first token is never noise, and the last token always."""


class SpanCorruption(Objective):
    """[CLS] text with sentinels for spans [SEP], then [BOS] sentinels and spans.

    The target predicts itself and [EOS].
    """

    name = "span_corruption"
    attention = "prefix"
    Config = SpanCorruptionConfig

    def __init__(self, config: SpanCorruptionConfig, context: Context) -> None:
        super().__init__(config, context)
        self._mode = mode_token(context.vocabulary, config.mode)
        self._sentinels = np.array(context.vocabulary.sentinels, dtype=np.int64)
        self._check_sentinels(context.window)

    def _check_sentinels(self, window: int) -> None:
        needed, available = self._most_runs(np.arange(1, window + 1)), len(self._sentinels)
        if needed[-1] > available:
            noise, spans = self._counts(window)
            fits = int(np.count_nonzero(needed <= available))
            wrapped = " + 1 that may wrap around the end" if needed[-1] > spans else ""
            raise ObjectiveError(
                f"of W = {window} tokens, round({window} x {self.config.noise_density}) = {noise} "
                f"are noise, in round({noise} / {self.config.mean_span_length}) = {spans} "
                f"spans{wrapped}, but the tokenizer has {available} sentinels: data.window up "
                f"to {fits} fits, or make the tokenizer with "
                f"`megapt-prep tokenizer --sentinels {needed[-1]}`"
            )

    def _counts(self, n: int) -> tuple[int, int]:
        """Return the numbers of noise tokens and of spans in a text of `n` tokens."""
        noise, spans = span_counts(
            np.array([n]), self.config.noise_density, self.config.mean_span_length
        )
        return int(noise[0]), int(spans[0])

    def _most_runs(self, sizes: Ints) -> Ints:
        """Return the maximum number of noise runs per text; rolling may cut one span in two."""
        noise, spans = span_counts(sizes, self.config.noise_density, self.config.mean_span_length)
        rolls = self.config.compat is None
        most: Ints = spans + ((noise > spans) & rolls)
        return most

    def _positions(self, tokens: int, runs: float) -> float:
        """Return the number of positions: text, two sentinels per run, and special tokens."""
        return tokens + 2 * runs + RESERVED + (self._mode is not None)

    def cost(self, tokens: int) -> Cost:
        """Return n + 2 r + 3 positions and noise + r + 1 targets, for r expected runs of noise.

        A text is rolled by each of n shifts with equal probability, and noise - spans of them cut a
        span in two.
        """
        noise, spans = self._counts(tokens)
        runs: float = spans
        if self.config.compat is None:
            runs += (noise - spans) / tokens
        return Cost(self._positions(tokens, runs), noise + runs + 1)

    def longest_example(self, window: int) -> int:
        """Return the positions of a text of W tokens with the most runs of noise."""
        return int(self._positions(window, int(self._most_runs(np.array([window]))[0])))

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece."""
        if not window.pieces:
            return []
        texts, config = Texts.of(window.pieces), self.config
        rolls = config.compat is None
        noise = noise_mask(texts.sizes, config.noise_density, config.mean_span_length, rolls, rng)
        documents = [piece.document for piece in window.pieces]
        divided = divide(texts, noise, self._sentinels)
        return rewritings(self.vocabulary, *divided, documents, self._mode)

    def prompt(self, tokens: Ints) -> Example:
        """Return the text with a sentinel at its end, and [BOS] and that sentinel as the target.

        The model then generates the missing end of the text.
        """
        sentinel = self.vocabulary.sentinels[0]
        source, target = concatenate(tokens, sentinel), concatenate(tokens[:0], sentinel)
        return rewriting_prompt(self.vocabulary, source, target, self._mode)
