"""Next-sentence prediction (Devlin et al. 2019): does text B follow text A?

L = -log P(next or random | A, B)

Each piece of at least two sentences is cut in two at a random sentence start. Every first part A
makes two pairs: one with its own second part B, and one with the B of another piece, the next in a
random cycle. So both answers are equally frequent in every window. Every A and every B occurs once
with each answer, so neither alone reveals the answer. A wrong B always comes from another document.
Pieces of one sentence, and a single piece without a partner, form no pair. A wrong pair of more
than W tokens loses the end of its B.
"""

from __future__ import annotations

import numpy as np

from megapt.config import Section
from megapt.data import CounterRng, Example, HeadSpec, Window
from megapt.objectives.base import Context, Cost, Objective
from megapt.objectives.pairs import (
    Pair,
    Pairing,
    Reading,
    check_partners,
    cut_pieces,
    pair_head,
    pair_task_example,
)
from megapt.objectives.reference_pairs import bert_pairs


class NspConfig(Section):
    """Settings of `nsp`."""

    pooling: Reading = "pair"
    """What the head reads. `pair`: the mean states of A and of B (Conneau et al. 2017); it learns
    from far fewer pairs. `cls`: the state at [CLS], as in BERT."""
    pairing: Pairing = "balanced"
    """How pairs are formed. `balanced`: both answers for every piece. `bert`: BERT's published
    rule."""


class Nsp(Objective):
    """The pair task alone; `bert` combines it with masking."""

    name = "nsp"
    attention = "bidirectional"
    Config = NspConfig

    def __init__(self, config: NspConfig, context: Context) -> None:
        super().__init__(config, context)
        check_partners(self.name, context)

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head with two classes."""
        return (pair_head("nsp", self.config.pooling),)

    def cost(self, tokens: int) -> Cost:
        """Return 2 n + 6 positions and 2 targets: A and B are in a right and in a wrong pair.

        BERT's pairing takes 1.5 n + 6 positions. On average a text of many sentences makes one pair
        of each kind, and the wrong pairs add half a text from other documents.
        """
        return Cost((2 if self.config.pairing == "balanced" else 1.5) * tokens + 6, 2)

    def _pairs(self, window: Window, rng: CounterRng) -> list[Pair]:
        longest = self.context.window
        if self.config.pairing == "bert":
            return bert_pairs(window.pieces, "nsp", longest, rng)
        right, _ = cut_pieces(window.pieces, "nsp", rng)
        cycle = rng.permutation(len(right))
        partner = np.empty_like(cycle)
        partner[cycle] = np.roll(cycle, 1)
        return [
            pair
            for own, other in zip(right, partner.tolist(), strict=True)
            for pair in (own, own.with_other(right[other].b, longest))
        ]

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per pair."""
        return [
            pair_task_example(self.vocabulary, pair, "nsp") for pair in self._pairs(window, rng)
        ]
