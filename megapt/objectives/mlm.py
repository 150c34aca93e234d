"""Masked language modelling (Devlin et al. 2019): predict masked tokens from both sides.

L = -sum_{t in M} log P(x_t | x with M masked)
"""

from __future__ import annotations

from megapt.data import CounterRng, Example, HeadSpec, Targets, Window, make_example
from megapt.data.example import lay
from megapt.objectives.base import Objective
from megapt.objectives.noise import Masked, MaskingConfig, mask


class Mlm(Objective):
    """[CLS] corrupted text [SEP]; only the chosen tokens are predicted."""

    name = "mlm"
    attention = "bidirectional"
    Config = MaskingConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One token head."""
        return (HeadSpec("tokens", "token"),)

    def framed(self, text: Masked, document: int) -> Example:
        """Return the example of one masked text."""
        v = self.vocabulary
        targets = {"tokens": Targets(text.places + 1, text.labels)}
        tokens = lay(v.cls, text.tokens, v.sep)
        return make_example(tokens, self.attention, targets, document=document)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a piece."""
        masked = mask(window.pieces, self.config, self.vocabulary, rng)
        return [
            self.framed(text, piece.document)
            for text, piece in zip(masked, window.pieces, strict=True)
        ]
