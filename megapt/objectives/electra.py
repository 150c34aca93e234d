"""Replaced-token detection (Clark et al. 2020, ELECTRA): which tokens did a small model write?

L = L_mlm + w L_rtd
L_mlm = -(1 / |M|) sum_{t in M} log P_G(x_t | x with M masked)
L_rtd = -(1 / n) sum_t log P(whether y_t != x_t | y),  y_t ~ P_G at t in M, y_t = x_t elsewhere
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from megapt.data import CounterRng, Example, HeadSpec, Targets, Window, make_example
from megapt.data.example import Floats, concatenate
from megapt.objectives.base import Cost
from megapt.objectives.masking import Share
from megapt.objectives.noise import MaskingConfig, MaskingObjective, mask


class ElectraConfig(MaskingConfig):
    """Settings of the mask, of the generator and of the detection."""

    mask_replace_prob: Share = 1.0
    random_replace_prob: Share = 0.0
    detection_loss_weight: Annotated[float, Field(gt=0)] = 50.0
    """Weight w of the detection loss; the generator's loss has the weight 1."""
    generator_size: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Width of the generator, as a share of the model's width."""

    @model_validator(mode="after")
    def _check_compat(self) -> ElectraConfig:
        if self.compat:
            raise ValueError(
                f"compat={self.compat} is a rule of masked language modeling, not ELECTRA's; "
                f"remove it"
            )
        return self


def _float32_draws(n: int, rng: CounterRng) -> Floats:
    """Return `n` uniform draws from [0, 1), float32 [n].

    They are multiples of 2^-24. A finer draw close to 1 would be rounded to 1, which selects no
    token.
    """
    draws: Floats = (rng.bits(n) >> 40).astype(np.float32) * np.float32(2.0**-24)
    return draws


class Electra(MaskingObjective):
    """[CLS] masked text [SEP]; the head `generator` replaces every mask with a token it samples.

    The trunk reads the result, and `detection` has a target at every token of the text. The example
    labels all masked tokens "replaced". Where the generator samples the original token, the model
    changes the label to "original".
    """

    name = "electra"
    attention = "bidirectional"
    segments = 0
    Config = ElectraConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The generator and the detection head."""
        labels = ("original", "replaced")
        return (
            HeadSpec("generator", "generator", scale=self.config.generator_size),
            HeadSpec("detection", "detection", 2, self.config.detection_loss_weight, labels),
        )

    def cost(self, tokens: int) -> Cost:
        """Return n + 2 positions, and n + max(1, rate * n) targets: the text and the masks."""
        return Cost(tokens + 2, tokens + max(1.0, self.final_rate * tokens))

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece."""
        v = self.vocabulary
        examples = []
        texts = mask(window.pieces, self.config, v, rng, self.rate(window))
        for piece, text in zip(window.pieces, texts, strict=True):
            n = len(piece.tokens)
            draws = _float32_draws(len(text.labels), rng)
            replaced = np.zeros(n, dtype=np.uint8)
            replaced[text.places] = 1
            targets = {
                "generator": Targets(text.places + 1, text.labels, draws=draws),
                "detection": Targets(np.arange(1, n + 1), replaced),
            }
            tokens = concatenate(v.cls, text.tokens, v.sep)
            examples.append(make_example(tokens, self.attention, targets, document=piece.document))
        return examples
