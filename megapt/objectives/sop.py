"""Sentence-order prediction (Lan et al. 2020, section 3.1): are two parts of a text in order?

L = -log P(ordered or swapped | A, B)

Each piece, without its first sentence and without a last sentence that may be incomplete, is cut in
two at a random sentence start. The two parts make two pairs, in order and swapped. So both answers
are equally frequent in every window, with the same topic, length and text. No second document is
needed.
"""

from __future__ import annotations

from megapt.config import Section
from megapt.data import CounterRng, Example, HeadSpec, Window
from megapt.objectives.base import Cost, Objective
from megapt.objectives.pairs import Reading, cut_pieces, pair_head, pair_task_example


class SopConfig(Section):
    """Settings of `sop`."""

    pooling: Reading = "pair"
    """What the head reads: `pair`, the mean states of A and of B, or `cls`; see `nsp`."""


class Sop(Objective):
    """The order task alone; `bert` with `pairs: sop` combines it with masking."""

    name = "sop"
    attention = "bidirectional"
    Config = SopConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head with two classes."""
        return (pair_head("sop", self.config.pooling),)

    def cost(self, tokens: int) -> Cost:
        """Return the cost of both orders: at most 2 n + 6 positions, 2 targets."""
        return Cost(2 * tokens + 6, 2)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return two examples per pair: in order and swapped."""
        ordered, _ = cut_pieces(window.pieces, "sop", rng)
        return [
            pair_task_example(self.vocabulary, pair, "sop")
            for own in ordered
            for pair in (own, own.swapped())
        ]
