"""BERT's pretraining (Devlin et al. 2019): masked tokens and next-sentence prediction together.

L = L_mlm + w * L_nsp

Every text stands in one pair, so that it is masked once. Half of the pieces of a window, chosen at
random, exchange their second parts in a cycle; a half-integer is rounded up or down with equal
chance, and since a lone exchange is impossible, one becomes none or two with equal chance. So the
expected share of wrong pairs is one half. As in `nsp`, a wrong pair of more than W tokens loses the
end of its B.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from megapt.data import CounterRng, Example, HeadSpec, Targets, Window
from megapt.objectives.mlm import Mlm
from megapt.objectives.noise import Masked, MaskingConfig, Text, mask
from megapt.objectives.nsp import (
    Pair,
    Reading,
    cut_pieces,
    nsp_head,
    nsp_target,
    pair_example,
)


class BertConfig(MaskingConfig):
    """The mask of `mlm`, and the pairs of `nsp`."""

    nsp_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight w of the next-sentence loss."""
    reading: Reading = "cls"
    """Where the pair is read; see `nsp`."""


def exchange(true: list[Pair], window: int, rng: CounterRng) -> list[Pair]:
    """Let half of the pairs exchange their second parts, so that each text is used once.

    Args:
        true: the pairs as they were cut.
        window: most tokens of a pair.
        rng: of the window.
    """
    up, two = rng.chance(0.5), rng.chance(0.5)
    wrong = (len(true) + up) // 2
    if wrong == 1:
        wrong = 2 * two
    cycle = rng.permutation(len(true))[:wrong]
    pairs = list(true)
    for i, j in zip(cycle.tolist(), np.roll(cycle, 1).tolist(), strict=True):
        pairs[i] = true[i].with_other(true[j].b, window)
    return pairs


class Bert(Mlm):
    """The pair of `nsp`, masked as in `mlm`; a piece without a partner is masked alone."""

    name = "bert"
    Config = BertConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """A token head and the head of `nsp`."""
        return (
            HeadSpec("tokens", "token"),
            nsp_head(self.config.reading, self.config.nsp_weight),
        )

    def _framed_pair(self, text: Masked, pair: Pair) -> Example:
        cut = len(pair.a.tokens)
        # [CLS] stands before A, [CLS] and [SEP] before B.
        targets = {
            "tokens": Targets(text.places + 1 + (text.places >= cut), text.labels),
            "nsp": nsp_target(pair.label),
        }
        a, b, v = text.tokens[:cut], text.tokens[cut:], self.vocabulary
        return pair_example(a, b, v.cls, v.sep, targets, pair.document)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a pair and one for each piece that forms none."""
        true, left = cut_pieces(window, rng)
        pairs = exchange(true, self.context.window, rng)
        alone = [window.pieces[number] for number in left]
        texts: list[Text] = [*(pair.joined() for pair in pairs), *alone]
        masked = mask(texts, self.config, self.vocabulary, rng)
        return [
            *map(self._framed_pair, masked, pairs),
            *(
                self.framed(text, piece.document)
                for text, piece in zip(masked[len(pairs) :], alone, strict=True)
            ),
        ]
