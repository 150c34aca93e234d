"""Text infilling (Lewis et al. 2020, section 2.2): rewrite a text from its corrupted form.

L = -sum_t log P(x_t | corrupted x, x_1 ... x_{t-1})

Sentences are permuted, then each span of words is replaced by one [MASK], then the text may be
rotated. The model is a single stack, as in `rewriting`.
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
from megapt.objectives.ragged import Texts, firsts, mask_randomly, offsets, picked, split
from megapt.objectives.rewriting import rewriting_prompt, rewritings
from megapt.objectives.word_spans import (
    Items,
    draw_spans,
    expected_spans,
    place_spans,
    place_spans_as_bart,
    round_randomly,
)


class InfillingConfig(Section):
    """Settings of the noise. The defaults are those of BART's published run."""

    mask_rate: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the words that are in spans, exact in expectation."""
    mean_span_length: Annotated[float, Field(ge=1, le=100)] = 3.5
    """Mean of the Poisson length of a span, in words. A span of length 0 inserts a [MASK]."""
    replace: Literal["one", "each", "none"] = "one"
    """What replaces a span: one [MASK], one [MASK] per token, or nothing."""
    random_replace_prob: Share = 0.1
    """Share of the spans that random ordinary tokens replace, instead of [MASK]."""
    permute_sentences: Share = 1.0
    """Share of the sentences that are permuted among themselves."""
    rotate: Share = 0.0
    """Probability that the source is rotated, so that it begins at a random token."""
    compat: Literal["bart"] | None = None
    """`bart`: rounding, places and random ids follow the rule of BART's code."""

    @model_validator(mode="after")
    def _check_noise(self) -> InfillingConfig:
        if not (self.mask_rate or self.permute_sentences or self.rotate):
            raise ValueError(
                "mask_rate, permute_sentences and rotate are all 0: the source would be the text "
                "itself; one of them should be above 0"
            )
        if self.compat and self.replace != "one":
            raise ValueError(
                f"compat={self.compat} replaces each span by one [MASK]; set replace to one "
                f"instead of {self.replace}"
            )
        return self


def permute_sentences(texts: Texts, share: float, compat: bool, rng: CounterRng) -> Texts:
    """Permute a random `share` of the sentences of each text among themselves."""
    starts = np.flatnonzero(texts.sentence_starts)
    sizes = np.diff(starts, append=len(texts.tokens))
    counts = np.add.reduceat(texts.sentence_starts, texts.firsts, dtype=np.int64)
    number = (
        np.ceil(share * counts).astype(np.int64) if compat else round_randomly(share * counts, rng)
    )
    moved = picked(counts, number, rng)
    order = np.arange(len(sizes))
    order[np.sort(moved)] = moved
    starts, sizes = starts[order], sizes[order]
    places = starts.repeat(sizes) + offsets(sizes)
    return Texts(
        texts.tokens[places], texts.word_starts[places], texts.sentence_starts[places], texts.sizes
    )


class Infilling(Objective):
    """[CLS] corrupted text [SEP] (segment 0, visible to all), then [BOS] text (segment 1, causal).

    The target predicts the whole original text and [EOS].
    """

    name = "infilling"
    attention = "prefix"
    rewrites = True
    Config = InfillingConfig

    def longest_example(self, window: int) -> int:
        """Return 2 W + 3: a source has at most W tokens."""
        return 2 * window + RESERVED

    def cost(self, tokens: int) -> Cost:
        """Return 2 n + 3 positions, minus the hidden tokens, plus the [MASK]s; n + 1 targets.

        This counts every token as a word and follows the rule without `compat`. If [MASK]s are
        skipped because the source is full, it is an upper bound: the average number of [MASK]s is
        at most the free room.
        """
        config: InfillingConfig = self.config
        hidden = config.mask_rate * tokens
        positions = 2 * tokens + RESERVED
        if config.replace == "each":
            return Cost(positions, tokens + 1)
        if config.replace == "none":
            return Cost(positions - hidden, tokens + 1)
        up = hidden - int(hidden)
        free = max(self.context.window - tokens, 0)  # for [MASK]s beyond one per hidden token
        fewer, more = (
            min(expected_spans(words, config.mean_span_length), words + free)
            for words in (int(hidden), int(hidden) + 1)
        )
        return Cost(positions - hidden + (1 - up) * fewer + up * more, tokens + 1)

    def _items(self, texts: Texts, rng: CounterRng) -> Items:
        """Draw the spans of each text and place them."""
        config: InfillingConfig = self.config
        words = np.add.reduceat(texts.word_starts, texts.firsts, dtype=np.int64)
        if config.compat:  # in single precision, as in fairseq
            budget = np.ceil(words.astype(np.float32) * np.float32(config.mask_rate))
            budget = budget.astype(np.int64)
        else:
            budget = round_randomly(config.mask_rate * words, rng)
        longest = self.context.window
        # The hidden words have at least `budget` tokens. So with `room` [MASK]s, one per span, a
        # source has at most W tokens.
        room = longest - texts.sizes + budget
        spans = draw_spans(budget, room, config.mean_span_length, rng)
        if config.compat:
            return place_spans_as_bart(
                texts, words, spans, longest, config.random_replace_prob, rng
            )
        return place_spans(texts, words - budget, spans, config.random_replace_prob, rng)

    def _sources(self, texts: Texts, items: Items, rng: CounterRng) -> tuple[Ints, Ints]:
        """Return the sources end to end, hidden items replaced, and the size of each source."""
        config: InfillingConfig = self.config
        left = items.sizes if config.replace == "each" else int(config.replace == "one")
        sizes = np.where(items.hidden, left, items.sizes)
        places = firsts(items.sizes).repeat(sizes) + offsets(sizes)
        # A [MASK] that is inserted at the end has a place after the last token.
        sources = texts.tokens[np.minimum(places, len(texts.tokens) - 1)]
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
        """Return the sources, of which some are rotated."""
        some = rng.uniform(len(sizes)) < self.config.rotate
        # fairseq draws one of n + 1 offsets. The last one is a full turn, which changes nothing.
        offset = rng.uniform(len(sizes)) * (sizes + bool(self.config.compat))
        shifted = offsets(sizes) + (some * offset.astype(np.int64)).repeat(sizes)
        rotated: Ints = sources[firsts(sizes).repeat(sizes) + shifted % sizes.repeat(sizes)]
        return rotated

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece; each piece is a text of its own."""
        if not window.pieces:
            return []
        config: InfillingConfig = self.config
        texts = Texts.of(window.pieces)
        if config.permute_sentences:
            texts = permute_sentences(texts, config.permute_sentences, bool(config.compat), rng)
        sources, sizes = self._sources(texts, self._items(texts, rng), rng)
        if config.rotate:
            sources = self._rotated(sources, sizes, rng)
        whole = [piece.tokens for piece in window.pieces]
        documents = [piece.document for piece in window.pieces]
        return rewritings(self.vocabulary, split(sources, sizes), whole, documents)

    def sample_prompt(self, tokens: Ints, rng: CounterRng) -> Ints:
        """Return the text, masked at the training rate."""
        return mask_randomly(tokens, self.config.mask_rate, self.vocabulary.mask, rng)

    def prompt(self, tokens: Ints) -> Example:
        """Return the source and [BOS]; the model generates the rewritten text."""
        return rewriting_prompt(self.vocabulary, tokens, tokens[:0])
