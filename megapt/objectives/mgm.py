"""Masked generation: write the whole sequence, left to right, from its masked form.

L = -sum_t log P(x_t | x with M masked, x_1 ... x_{t-1})

The full-sequence form of denoising (Song et al. 2019; Lewis et al. 2020; Raffel et al. 2020,
section 3.3.1, "BERT-style") on a single stack: the masked source is a bidirectional prefix, the
target is causal (the prefix LM of Raffel et al., figure 4).
"""

from __future__ import annotations

from megapt.data import RESERVED, CounterRng, Example, Window
from megapt.data.example import Ints
from megapt.objectives.base import Cost
from megapt.objectives.masking import MaskingConfig, Rate, Share
from megapt.objectives.noise import MaskingObjective, mask
from megapt.objectives.ragged import mask_randomly
from megapt.objectives.rewriting import rewriting_prompt, rewritings


class MgmConfig(MaskingConfig):
    """Settings of the mask on the source."""

    mask_rate: Rate = 0.3
    mask_replace_prob: Share = 1.0
    random_replace_prob: Share = 0.0


class Mgm(MaskingObjective):
    """[CLS] masked text [SEP] (segment 0, visible to all), then [BOS] text (segment 1, causal).

    The target predicts the text and [EOS]. Its position ids are those of the source, so token t of
    the target and token t of the source have the same one.
    """

    name = "mgm"
    attention = "prefix"
    rewrites = True
    Config = MgmConfig

    def longest_example(self, window: int) -> int:
        """Return 2 W + 3: source and target."""
        return 2 * window + RESERVED

    def cost(self, tokens: int) -> Cost:
        """Return 2 n + 3 positions, for source and target, and n + 1 targets."""
        return Cost(2 * tokens + RESERVED, tokens + 1)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece; each piece is a sequence of its own."""
        masked = mask(window.pieces, self.config, self.vocabulary, rng, self.rate(window))
        return rewritings(
            self.vocabulary,
            [text.tokens for text in masked],
            [piece.tokens for piece in window.pieces],
            [piece.document for piece in window.pieces],
        )

    def sample_prompt(self, tokens: Ints, rng: CounterRng) -> Ints:
        """Return the text, masked at the training rate."""
        return mask_randomly(tokens, self.config.mask_rate, self.vocabulary.mask, rng)

    def prompt(self, tokens: Ints) -> Example:
        """Return the source and [BOS]; the model generates the rewritten text."""
        return rewriting_prompt(self.vocabulary, tokens, tokens[:0])
