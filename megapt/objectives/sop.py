"""Sentence-order prediction (Lan et al. 2020, section 3.1): are two parts of a text in order?

L = -log P(ordered or swapped | A, B)

Each piece, without its first sentence and without a last one that may be broken off, is cut in two
at a random sentence start. Both parts then stand in two pairs, in their order and swapped. So both
answers are equally frequent in every window, and topic, length and text are the same under both.
No second document is needed.
"""

from __future__ import annotations

from megapt.config import Section
from megapt.data import CounterRng, Example, HeadSpec, Window
from megapt.objectives.base import Cost, Objective
from megapt.objectives.pairs import Reading, asked, cut_pieces, pair_head


class SopConfig(Section):
    """Settings of `sop`."""

    pooling: Reading = "pair"
    """Where the head reads: `pair`, the mean states of A and of B, or `cls`; see `nsp`."""


class Sop(Objective):
    """The order of two parts alone; `bert` with `pairs: sop` joins it to masking."""

    name = "sop"
    attention = "bidirectional"
    Config = SopConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head of two classes."""
        return (pair_head("sop", self.config.pooling),)

    def cost(self, tokens: int) -> Cost:
        """Return what both orders take: 2 n + 6 positions at most, 2 targets."""
        return Cost(2 * tokens + 6, 2)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return two examples a pair: in order and swapped."""
        ordered, _ = cut_pieces(window.pieces, "sop", rng)
        return [
            asked(self.vocabulary, pair, "sop") for own in ordered for pair in (own, own.swapped())
        ]
