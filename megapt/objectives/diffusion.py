"""Masked diffusion: predict any share of the tokens from the others, as a bound on -log P(x).

L = (1 / n) E_{l ~ U{1 ... n}} E_{|M| = l} [ (n / l) sum_{t in M} -log P(x_t | x with M masked) ]

n L is at least -log P(x | n), where the model P writes the tokens one by one in a random order
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

MIN_RATE = 1e-3
"""Lowest rate that MDLM and LLaDA draw. MDLM masks at most at the rate 1 - MIN_RATE."""


class DiffusionConfig(Section):
    """Settings of the mask."""

    compat: Literal["mdlm", "llada"] | None = None
    """`mdlm` (Sahoo et al. 2024) or `llada` (Nie et al. 2025): mask each token independently, at a
    rate drawn for the text, as their code does. null: draw the exact number of masked tokens."""


class Diffusion(Objective):
    """[CLS] text [SEP], with some text tokens replaced by [MASK]; these tokens are predicted.

    With the weights and sizes of the targets, the loss is the bound, in nats per token of text.
    """

    name = "diffusion"
    attention = "bidirectional"
    segments = 0
    Config = DiffusionConfig

    def cost(self, tokens: int) -> Cost:
        """Return n + 2 positions and (n + 1) / 2 targets; with `compat`, the mean of that rule."""
        targets = {
            None: (tokens + 1) / 2,
            "mdlm": tokens * (1 - MIN_RATE) * (1 + MIN_RATE) / 2,
            "llada": tokens * (1 + MIN_RATE) / 2,
        }
        return Cost(tokens + 2, targets[self.config.compat])

    def _draw(self, sizes: Ints, rng: CounterRng) -> tuple[Bools, Floats]:
        """Return the tokens to mask, bool [T], and the weight of each text's targets, [texts].

        By default one draw spreads the masked shares of a window's texts evenly. Each share is
        still uniform, and their sum varies less than with independent draws.
        """
        texts = len(sizes)
        if self.config.compat is None:
            shares = (rng.uniform(1) + np.arange(texts) / texts) % 1.0
            counts = 1 + (sizes * shares).astype(np.int64)
            return choose(sizes, counts, rng), sizes / counts
        drawn = rng.uniform(texts)
        if self.config.compat == "mdlm":
            drawn = (drawn + np.arange(texts)) / texts
        rates = MIN_RATE + (1 - MIN_RATE) * drawn
        probabilities = rates * (1 - MIN_RATE) if self.config.compat == "mdlm" else rates
        return rng.uniform(int(sizes.sum())) < probabilities.repeat(sizes), 1 / rates

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece."""
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
            targets = Targets(positions, labels, np.full(len(labels), weight), size)
            examples.append(
                make_example(
                    concatenate(v.cls, text, v.sep),
                    self.attention,
                    {"tokens": targets},
                    document=piece.document,
                )
            )
        return examples

    def masked(self, tokens: Ints) -> Example | None:
        """Return [CLS] text [SEP], with a target at each [MASK]."""
        return self.asked_at_masks(tokens)
