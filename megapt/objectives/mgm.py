"""Masked generation: write the whole sequence, left to right, from its masked form.

L = -sum_t log P(x_t | x with M masked, x_1 ... x_{t-1})

The full-sequence form of denoising (Song et al. 2019; Lewis et al. 2020; Raffel et al. 2020,
section 3.3.1, "BERT-style") on a single stack: the masked source is a bidirectional prefix, the
target is causal (the prefix LM of Raffel et al., figure 4).
"""

from __future__ import annotations

import numpy as np

from megapt.data import RESERVED, CounterRng, Example, HeadSpec, Targets, Window, make_example
from megapt.data.example import Ints, lay
from megapt.objectives.base import Objective
from megapt.objectives.noise import MaskingConfig, mask


class MgmConfig(MaskingConfig):
    """The mask of the source."""

    mask_rate: float = 0.3
    mask_share: float = 1.0
    random_share: float = 0.0


class Mgm(Objective):
    """[CLS] masked text [SEP] (segment 0, seen by all), then [BOS] text (segment 1, causal).

    The target predicts the text and [EOS]. It takes the same position ids as the source, so that
    token t of the target knows where token t of the source stands.
    """

    name = "mgm"
    attention = "prefix"
    Config = MgmConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One token head."""
        return (HeadSpec("tokens", "token"),)

    def longest_example(self, window: int) -> int:
        """Return 2 W + 3: source and target."""
        return 2 * window + RESERVED

    def _rewrite(
        self, source: Ints, target: Ints, targets: dict[str, Targets], document: int
    ) -> Example:
        v = self.vocabulary
        tokens = lay(v.cls, source, v.sep, v.bos, target)
        prefix = len(source) + 2
        positions = np.arange(len(tokens), dtype=np.int32)
        positions[prefix:] -= prefix
        segments = np.zeros(len(tokens), dtype=np.uint8)
        segments[prefix:] = 1
        return make_example(
            tokens,
            self.attention,
            targets,
            positions=positions,
            segments=segments,
            prefix=prefix,
            document=document,
        )

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a piece; a piece is rewritten as a sequence of its own."""
        examples = []
        sources = mask(window.pieces, self.config, self.vocabulary, rng)
        for piece, source in zip(window.pieces, sources, strict=True):
            labels = lay(piece.tokens, self.vocabulary.eos)
            places = np.arange(len(labels)) + len(piece.tokens) + 2
            targets = {"tokens": Targets(places, labels)}
            examples.append(self._rewrite(source.tokens, piece.tokens, targets, piece.document))
        return examples

    def prompt(self, tokens: Ints) -> Example:
        """Return the source and [BOS]: its rewriting is generated."""
        return self._rewrite(tokens, tokens[:0], {}, -1)
