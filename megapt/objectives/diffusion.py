"""Masked diffusion: predict any share of the tokens from the others, as a bound on -log P(x).

L = (1 / n) E_{l ~ U{1 ... n}} E_{|M| = l} [ (n / l) sum_{t in M} -log P(x_t | x with M masked) ]

n L is at least -log P(x | n), P the model that writes the tokens in a random order, one by one
(Hoogeboom et al. 2022, section 3; Uria et al. 2014). It equals the bound of absorbing diffusion in
continuous time (Austin et al. 2021; Sahoo et al. 2024; Shi et al. 2024; Ou et al. 2024).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from megapt.config import Section
from megapt.data import CounterRng, Example, Targets, Window, make_example
from megapt.data.example import Bools, Floats, Ints, concatenate
from megapt.objectives.base import Cost, Objective
from megapt.objectives.ragged import Texts, choose, split

LEAST = 1e-3
"""Lowest rate that MDLM and LLaDA draw; also what MDLM's highest lacks to 1."""


class DiffusionConfig(Section):
    """How the tokens are masked."""

    compat: Literal["mdlm", "llada"] | None = None
    """Mask each token by itself at a rate drawn for the text, as in the code of Sahoo et al. 2024
    or of Nie et al. 2025; by default their number is drawn, and is exact."""


class Diffusion(Objective):
    """[CLS] text [SEP], some of the text [MASK]; these tokens are predicted.

    The weights and sizes of the targets make the loss the bound, in nats a token of text.
    """

    name = "diffusion"
    attention = "bidirectional"
    segments = 0
    Config = DiffusionConfig

    def cost(self, tokens: int) -> Cost:
        """Return n + 2 positions, and half of the text: (n + 1) / 2 targets."""
        targets = {
            None: (tokens + 1) / 2,
            "mdlm": tokens * (1 - LEAST) * (1 + LEAST) / 2,
            "llada": tokens * (1 + LEAST) / 2,
        }
        return Cost(tokens + 2, targets[self.config.compat])

    def _draw(self, sizes: Ints, rng: CounterRng) -> tuple[Bools, Floats]:
        """Return the tokens to mask, bool [T], and the weight of each text's targets, [texts].

        By default the shares of a window's texts are spread evenly from one draw: each is as
        uniform as if it were drawn alone, and the sum over the texts varies less.
        """
        texts = len(sizes)
        if self.config.compat is None:
            shares = (rng.uniform(1) + np.arange(texts) / texts) % 1.0
            counts = 1 + (sizes * shares).astype(np.int64)
            return choose(sizes, counts, rng), sizes / counts
        drawn = rng.uniform(texts)
        if self.config.compat == "mdlm":
            drawn = (drawn + np.arange(texts)) / texts
        rates = LEAST + (1 - LEAST) * drawn
        chances = rates * (1 - LEAST) if self.config.compat == "mdlm" else rates
        return rng.uniform(int(sizes.sum())) < chances.repeat(sizes), 1 / rates

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a piece."""
        if not window.pieces:
            return []
        v = self.vocabulary
        texts = Texts.of(window.pieces)
        hidden, weights = self._draw(texts.sizes, rng)
        counts = np.add.reduceat(hidden, texts.firsts, dtype=np.int64)
        places = np.flatnonzero(hidden)
        shown = texts.tokens.copy()
        shown[places] = v.mask
        examples = []
        for piece, text, positions, labels, weight in zip(
            window.pieces,
            split(shown, texts.sizes),
            split(places - texts.firsts.repeat(counts) + 1, counts),
            split(texts.tokens[places], counts),
            weights.tolist(),
            strict=True,
        ):
            size = len(piece.tokens)
            asked = Targets(positions, labels, np.full(len(labels), weight), size)
            examples.append(
                make_example(
                    concatenate(v.cls, text, v.sep),
                    self.attention,
                    {"tokens": asked},
                    document=piece.document,
                )
            )
        return examples

    def masked(self, tokens: Ints) -> Example | None:
        """Return the text as it is shown to the trunk; each [MASK] is asked."""
        return self._asked_at_masks(tokens)
