"""Prefix language modeling (Raffel et al. 2020, section 3.2.1): continue a visible prefix.

L = -sum_{t > k} log P(x_t | x_1 ... x_{t-1}),  x_1 ... x_k visible to all
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from megapt.config import Section
from megapt.data import CounterRng, Example, Targets, Window, make_example
from megapt.data.example import Ints, concatenate
from megapt.objectives.base import Context, Cost, Objective
from megapt.objectives.spans import Mode, mode_token


class PrefixLmConfig(Section):
    """Settings of `prefix_lm`."""

    target_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.5
    """Average share of the tokens that is predicted; in one text it is at most twice this share."""
    mode: Mode | None = None
    """Mode token after [BOS], which says what to predict (Tay et al. 2022); null: none."""


class PrefixLm(Objective):
    """[BOS] x_1 ... x_n, with the first k tokens visible to all, predicts x_{k+1} ... x_n [EOS].

    A piece that does not begin its document has no [BOS], and one that does not end it no [EOS].
    """

    name = "prefix_lm"
    attention = "prefix"
    segments = 0
    Config = PrefixLmConfig

    def __init__(self, config: PrefixLmConfig, context: Context) -> None:
        super().__init__(config, context)
        mode = mode_token(context.vocabulary, config.mode)
        self._mode = () if mode is None else (mode,)

    def _shortest(self, sizes: Ints) -> Ints:
        """Return the minimum number of prefix tokens in texts of these sizes, int64 [texts].

        It is min(max(1, round((1 - 2 rate) (n - 1))), n - 1), with halves rounded to even, as in
        `random_prefix_noise_mask` of T5.
        """
        most = sizes - 1
        fewest = np.rint((1 - 2 * self.config.target_rate) * most).astype(np.int64)
        shortest: Ints = np.minimum(np.maximum(fewest, 1), most)
        return shortest

    def cost(self, tokens: int) -> Cost:
        """Return n + 1 positions, including [BOS], and the targets, including [EOS]."""
        prefix = (int(self._shortest(np.array([tokens]))[0]) + tokens - 1) / 2
        return Cost(tokens + 1 + len(self._mode), tokens - prefix + 1)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece, but none for a one-token piece inside its document."""
        sizes = np.array([len(piece.tokens) for piece in window.pieces], dtype=np.int64)
        low = self._shortest(sizes)
        shown = low + (rng.uniform(len(sizes)) * (sizes - low)).astype(np.int64)
        examples = []
        for piece, k in zip(window.pieces, shown.tolist(), strict=True):
            first = (self.vocabulary.bos,) if piece.starts_document else ()
            last = (self.vocabulary.eos,) if piece.ends_document else ()
            text = concatenate(*first, *self._mode, piece.tokens, *last)
            # The first prediction needs at least one token before it.
            prefix = max(len(first) + len(self._mode) + k, 1)
            if prefix == len(text):
                continue
            targets = {"tokens": Targets(np.arange(prefix - 1, len(text) - 1), text[prefix:])}
            examples.append(
                make_example(
                    text[:-1], self.attention, targets, prefix=prefix, document=piece.document
                )
            )
        return examples

    def present(self, tokens: Ints) -> Example:
        """Return [BOS] and the text, visible to all."""
        return make_example(concatenate(self.vocabulary.bos, tokens), "bidirectional", {})

    def prompt(self, tokens: Ints) -> Example:
        """Return [BOS] and the prompt, visible to all; the model generates the continuation."""
        return make_example(
            concatenate(self.vocabulary.bos, *self._mode, tokens), "bidirectional", {}
        )
