"""Autoregressive language modeling (Radford et al. 2018): predict the next token.

L = -sum_t log P(x_t | x_1 ... x_{t-1})
"""

from __future__ import annotations

import numpy as np

from megapt.config import Section
from megapt.data import CounterRng, Example, Targets, Window, make_example
from megapt.data.example import Ints, concatenate
from megapt.objectives.base import Cost, Objective


class ArlmConfig(Section):
    """`arlm` has no settings."""


class Arlm(Objective):
    """[BOS] x_1 ... x_n predicts x_1 ... x_n [EOS].

    A piece that does not begin its document has no [BOS], so its first token is not predicted. A
    piece that does not end its document has no [EOS].
    """

    name = "arlm"
    attention = "causal"
    segments = 0
    Config = ArlmConfig

    def cost(self, tokens: int) -> Cost:
        """Return n + 1 positions and n + 1 targets: [BOS] is an input, [EOS] a target."""
        return Cost(tokens + 1, tokens + 1)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one causal example per piece; every position predicts the next token."""
        bos, eos = self.vocabulary.bos, self.vocabulary.eos
        examples = []
        for piece in window.pieces:
            first = (bos,) if piece.starts_document else ()
            last = (eos,) if piece.ends_document else ()
            text = concatenate(*first, piece.tokens, *last)
            inputs, labels = text[:-1], text[1:]
            if len(labels):
                targets = {"tokens": Targets(np.arange(len(labels)), labels)}
                examples.append(
                    make_example(inputs, self.attention, targets, document=piece.document)
                )
        return examples

    def present(self, tokens: Ints) -> Example:
        """Return [BOS] and the text, causal."""
        return make_example(concatenate(self.vocabulary.bos, tokens), self.attention, {})

    def prompt(self, tokens: Ints) -> Example:
        """Return [BOS] and the prompt; the model generates the continuation."""
        return self.present(tokens)
