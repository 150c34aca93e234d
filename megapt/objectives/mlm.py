"""Masked language modeling (Devlin et al. 2019): predict masked tokens from both sides.

L = -sum_{t in M} log P(x_t | x with M masked)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from megapt.data import CounterRng, Example, Piece, Targets, Window, make_example
from megapt.data.example import Ints, concatenate
from megapt.objectives.base import Cost
from megapt.objectives.noise import Masked, MaskingConfig, MaskingObjective, mask
from megapt.objectives.reference_masks import RULES


class Mlm(MaskingObjective):
    """[CLS] masked text [SEP]; only the chosen tokens are predicted."""

    name = "mlm"
    attention = "bidirectional"
    segments = 0
    Config = MaskingConfig

    def cost(self, tokens: int) -> Cost:
        """Return n + 2 positions and max(1, rate * n) targets, with the rate at the end of the run.

        This is exact for single tokens. For words and runs of words it is the budget; a single unit
        that exceeds the budget masks more. With `compat`, it is the mean of that rule for single
        tokens.
        """
        config, rate = self.config, self.final_rate
        budget = max(1.0, rate * tokens)
        if config.compat is not None:
            budget = RULES[config.compat].expected(tokens, config, rate)
        return Cost(tokens + 2, budget)

    def framed(self, text: Masked, document: int) -> Example:
        """Return the example [CLS] text [SEP] of one masked text."""
        v = self.vocabulary
        targets = {"tokens": Targets(text.places + 1, text.labels)}
        tokens = concatenate(v.cls, text.tokens, v.sep)
        return make_example(tokens, self.attention, targets, document=document)

    def _unframed(self, text: Masked, document: int) -> Example:
        targets = {"tokens": Targets(text.places, text.labels)}
        return make_example(text.tokens, self.attention, targets, document=document)

    def _with_specials(self, piece: Piece) -> Piece:
        v = self.vocabulary
        marks = np.concatenate([[True], piece.word_starts, [True]])
        return replace(piece, tokens=concatenate(v.cls, piece.tokens, v.sep), word_starts=marks)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece."""
        # RoBERTa masks [CLS] and [SEP] like any other token.
        masks_specials = self.config.compat == "roberta"
        pieces: Sequence[Piece] = window.pieces
        if masks_specials:
            pieces = [self._with_specials(piece) for piece in pieces]
        masked = mask(pieces, self.config, self.vocabulary, rng, self.rate(window))
        example = self._unframed if masks_specials else self.framed
        return [
            example(text, piece.document) for text, piece in zip(masked, window.pieces, strict=True)
        ]

    def masked(self, tokens: Ints) -> Example | None:
        """Return [CLS] text [SEP], with a target at each [MASK]."""
        return self.asked_at_masks(tokens)
