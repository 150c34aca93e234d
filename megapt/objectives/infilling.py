"""Text infilling (Lewis et al. 2020, section 2.2): rewrite a text from its corrupted form.

L = -sum_t log P(x_t | corrupted x, x_1 ... x_{t-1})

Sentences change places, then spans of words give way to one [MASK] each, then the text may be
rotated. On a single stack, as in `rewriting`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from megapt.config import Section
from megapt.data import RESERVED, CounterRng, Example, Window
from megapt.data.example import Ints
from megapt.objectives.base import Cost, Objective
from megapt.objectives.masking import Share
from megapt.objectives.ragged import Texts, firsts, offsets, picked, some_masked, split
from megapt.objectives.rewriting import rewriting_prompt, rewritings
from megapt.objectives.word_spans import (
    Items,
    draw_spans,
    expected_spans,
    lay_spans,
    lay_spans_as_bart,
    rounded,
)


class InfillingConfig(Section):
    """Settings of the noise. The defaults are those of BART's published run."""

    mask_rate: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the words that spans hold, exact in expectation."""
    mean_span_length: Annotated[float, Field(ge=1, le=100)] = 3.5
    """Words of a span: Poisson with this mean. A span of none is a [MASK] more."""
    replace: Literal["one", "each", "none"] = "one"
    """What stands for a span: one [MASK], one for each of its tokens, or nothing."""
    random_share: Share = 0.1
    """Share of the spans that random ordinary tokens stand for in place of [MASK]."""
    permute_sentences: Share = 1.0
    """Share of the sentences that are put in random order among themselves."""
    rotate: Share = 0.0
    """Probability that the source is rotated, to begin with a token chosen at random."""
    compat: Literal["bart"] | None = None
    """`bart`: rounding, places and random ids by the rule of BART's code."""

    @model_validator(mode="after")
    def _noise(self) -> InfillingConfig:
        if not (self.mask_rate or self.permute_sentences or self.rotate):
            raise ValueError(
                "mask_rate, permute and rotate are all 0: the source would be the text itself"
            )
        if self.compat and self.replace != "one":
            raise ValueError(f"compat {self.compat} replaces each span by one, not {self.replace}")
        return self


def permuted(texts: Texts, share: float, compat: bool, rng: CounterRng) -> Texts:
    """Put `share` of the sentences of each text in random order among themselves."""
    starts = np.flatnonzero(texts.sentence_starts)
    sizes = np.diff(starts, append=len(texts.tokens))
    counts = np.add.reduceat(texts.sentence_starts, texts.firsts, dtype=np.int64)
    some = np.ceil(share * counts).astype(np.int64) if compat else rounded(share * counts, rng)
    moved = picked(counts, some, rng)
    order = np.arange(len(sizes))
    order[np.sort(moved)] = moved
    starts, sizes = starts[order], sizes[order]
    places = starts.repeat(sizes) + offsets(sizes)
    return Texts(
        texts.tokens[places], texts.word_starts[places], texts.sentence_starts[places], texts.sizes
    )


class Infilling(Objective):
    """[CLS] corrupted text [SEP] (segment 0, seen by all), then [BOS] text (segment 1, causal).

    The target predicts the whole text, in its own order, and [EOS].
    """

    name = "infilling"
    attention = "prefix"
    rewrites = True
    Config = InfillingConfig

    def longest_example(self, window: int) -> int:
        """Return 2 W + 3: no source is longer than W tokens."""
        return 2 * window + RESERVED

    def cost(self, tokens: int) -> Cost:
        """Return 2 n + 3 positions, less the hidden tokens, plus the [MASK]s; n + 1 targets.

        As if every token were a word, and for the rule without `compat`. Where [MASK]s are left
        out because the source is full, a bound: on average no more than the room there is.
        """
        config: InfillingConfig = self.config
        hidden = config.mask_rate * tokens
        positions = 2 * tokens + RESERVED
        if config.replace == "each":
            return Cost(positions, tokens + 1)
        if config.replace == "none":
            return Cost(positions - hidden, tokens + 1)
        up = hidden - int(hidden)
        free = max(self.context.window - tokens, 0)  # for [MASK]s beyond one a hidden token
        fewer, more = (
            min(expected_spans(words, config.mean_span_length), words + free)
            for words in (int(hidden), int(hidden) + 1)
        )
        return Cost(positions - hidden + (1 - up) * fewer + up * more, tokens + 1)

    def _items(self, texts: Texts, rng: CounterRng) -> Items:
        """Draw the spans of each text and lay them."""
        config: InfillingConfig = self.config
        words = np.add.reduceat(texts.word_starts, texts.firsts, dtype=np.int64)
        if config.compat:  # in single precision, as fairseq has it
            budget = np.ceil(words.astype(np.float32) * np.float32(config.mask_rate))
            budget = budget.astype(np.int64)
        else:
            budget = rounded(config.mask_rate * words, rng)
        longest = self.context.window
        # Hidden words have so many tokens at least: with a [MASK] a span, W stand in the source.
        room = longest - texts.sizes + budget
        spans = draw_spans(budget, room, config.mean_span_length, rng)
        if config.compat:
            return lay_spans_as_bart(texts, words, spans, longest, config.random_share, rng)
        return lay_spans(texts, words - budget, spans, config.random_share, rng)

    def _written(self, texts: Texts, items: Items, rng: CounterRng) -> tuple[Ints, Ints]:
        """Replace the hidden items; return the sources end to end, and the size of each."""
        config: InfillingConfig = self.config
        left = items.sizes if config.replace == "each" else int(config.replace == "one")
        sizes = np.where(items.hidden, left, items.sizes)
        places = firsts(items.sizes).repeat(sizes) + offsets(sizes)
        sources = texts.tokens[np.minimum(places, len(texts.tokens) - 1)]  # one [MASK] at the end
        sources[items.hidden.repeat(sizes)] = self.vocabulary.mask
        random = np.flatnonzero(items.random.repeat(sizes))
        if config.compat:
            ids = rng.integers(1, self.vocabulary.size, len(random))
        else:
            ordinary = self.vocabulary.ordinary
            ids = ordinary[rng.integers(0, len(ordinary), len(random))]
        sources[random] = ids
        return sources, np.add.reduceat(sizes, firsts(items.counts))

    def _rotated(self, sources: Ints, sizes: Ints, rng: CounterRng) -> Ints:
        """Rotate some of the sources."""
        some = rng.uniform(len(sizes)) < self.config.rotate
        # fairseq draws from one offset more, so that the whole turn counts twice.
        offset = rng.uniform(len(sizes)) * (sizes + bool(self.config.compat))
        turned = offsets(sizes) + (some * offset.astype(np.int64)).repeat(sizes)
        rotated: Ints = sources[firsts(sizes).repeat(sizes) + turned % sizes.repeat(sizes)]
        return rotated

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a piece; a piece is rewritten as a text of its own."""
        if not window.pieces:
            return []
        config: InfillingConfig = self.config
        texts = Texts.of(window.pieces)
        if config.permute_sentences:
            texts = permuted(texts, config.permute_sentences, bool(config.compat), rng)
        sources, sizes = self._written(texts, self._items(texts, rng), rng)
        if config.rotate:
            sources = self._rotated(sources, sizes, rng)
        whole = [piece.tokens for piece in window.pieces]
        documents = [piece.document for piece in window.pieces]
        return rewritings(self.vocabulary, split(sources, sizes), whole, documents)

    def sample_prompt(self, tokens: Ints, rng: CounterRng) -> Ints:
        """Return the text, masked at the rate of training."""
        return some_masked(tokens, self.config.mask_rate, self.vocabulary.mask, rng)

    def prompt(self, tokens: Ints) -> Example:
        """Return the source and [BOS]: its rewriting is generated."""
        return rewriting_prompt(self.vocabulary, tokens, tokens[:0])
