"""BERT's pretraining (Devlin et al. 2019): masked tokens and a question about a pair, together.

L = L_mlm + w * L_pair

The question is that of `nsp`, or that of `sop` as in ALBERT (Lan et al. 2020). Every text stands
once, so that it is masked once: of the pieces, cut as in those objectives, a random half gets the
wrong answer. A half-integer is rounded up or down with equal chance.

For `nsp` that half exchange their second parts in a cycle; since a lone exchange is impossible, one
becomes none or two with equal chance. So the expected share of wrong pairs is one half. As in
`nsp`, a wrong pair of more than W tokens loses the end of its B.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from megapt.data import CounterRng, Example, HeadSpec, Targets, Window
from megapt.objectives.base import Context, Cost
from megapt.objectives.mlm import Mlm
from megapt.objectives.noise import Masked, MaskingConfig, mask
from megapt.objectives.pairs import (
    Pair,
    Pairing,
    Part,
    Reading,
    Task,
    answer,
    check_partners,
    cut_pieces,
    pair_example,
    pair_head,
)
from megapt.objectives.reference_pairs import bert_pairs


class BertConfig(MaskingConfig):
    """The mask of `mlm`, and the pairs of `nsp` or `sop`."""

    pairs: Task = "nsp"
    """What is asked: `nsp`, does B follow A, or `sop`, are A and B in order."""
    pair_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight w of the pair's loss."""
    pooling: Reading = "cls"
    """Where the pair is read; see `nsp`."""
    pairing: Pairing = "balanced"
    """How pairs are formed: from every piece, or by BERT's published rule (ALBERT's for `sop`)."""

    @model_validator(mode="after")
    def _asks_at_cls(self) -> BertConfig:
        if self.compat == "roberta":
            raise ValueError("compat=roberta masks [CLS] too, and asks no pairs; set it in 'mlm'")
        return self


def exchange(right: list[Pair], longest: int, rng: CounterRng) -> list[Pair]:
    """Let half of the pairs exchange their second parts, so that each text is used once.

    Args:
        right: the pairs as they were cut.
        longest: most tokens of a pair.
        rng: of the window.
    """
    up, two = rng.chance(0.5), rng.chance(0.5)
    wrong = (len(right) + up) // 2
    if wrong == 1:
        wrong = 2 * two
    cycle = rng.permutation(len(right))[:wrong]
    pairs = list(right)
    for i, j in zip(cycle.tolist(), np.roll(cycle, 1).tolist(), strict=True):
        pairs[i] = right[i].with_other(right[j].b, longest)
    return pairs


def swap_half(ordered: list[Pair], rng: CounterRng) -> list[Pair]:
    """Swap the two parts of half of the pairs."""
    wrong = (len(ordered) + rng.chance(0.5)) // 2
    pairs = list(ordered)
    for i in rng.permutation(len(ordered))[:wrong].tolist():
        pairs[i] = ordered[i].swapped()
    return pairs


class Bert(Mlm):
    """A pair, masked as in `mlm`; what stands in no pair is masked alone."""

    name = "bert"
    segments = 2
    Config = BertConfig

    def __init__(self, config: BertConfig, context: Context) -> None:
        super().__init__(config, context)
        if config.pairs == "nsp" and config.pairing == "bert":
            # Without a second document B would be of the same, but called random.
            check_partners("bert with pairing=bert", context)

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """A token head and the head of the pair."""
        c = self.config
        return (*super().heads, pair_head(c.pairs, c.pooling, c.pair_weight))

    def cost(self, tokens: int) -> Cost:
        """Return that of `mlm`, one more [SEP] and the answer of the pair.

        For `sop` the first sentence stands alone, between [CLS] and [SEP] of its own. BERT's
        pairing of `nsp` reads on average two pairs of 3 n / 4 tokens each; see `nsp`.
        """
        task, published = self.config.pairs, self.config.pairing == "bert"
        if published and task == "nsp":
            masked = super().cost(-(-3 * tokens // 4))
            return Cost(2 * (masked.positions + 1), 2 * (masked.targets + 1))
        masked = super().cost(tokens)
        alone = 2 if task == "sop" and not published else 0
        return Cost(masked.positions + 1 + alone, masked.targets + 1)

    def _pairs(self, window: Window, rng: CounterRng) -> tuple[list[Pair], list[Part]]:
        task, longest = self.config.pairs, self.context.window
        if self.config.pairing == "bert":
            return bert_pairs(window.pieces, task, longest, rng), []
        right, alone = cut_pieces(window.pieces, task, rng)
        if task == "sop":
            return swap_half(right, rng), alone
        return exchange(right, longest, rng), alone

    def _framed_pair(self, text: Masked, pair: Pair) -> Example:
        cut = len(pair.a.tokens)
        # [CLS] stands before A, [CLS] and [SEP] before B.
        targets = {
            "tokens": Targets(text.places + 1 + (text.places >= cut), text.labels),
            self.config.pairs: answer(pair.label),
        }
        a, b = text.tokens[:cut], text.tokens[cut:]
        return pair_example(self.vocabulary, a, b, targets, pair.a.document)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a pair and one for each text that stands in none."""
        pairs, alone = self._pairs(window, rng)
        texts = [*(pair.joined() for pair in pairs), *alone]
        specials = [3] * len(pairs) + [2] * len(alone)
        masked = mask(texts, self.config, self.vocabulary, rng, self.rate(window), specials)
        return [
            *map(self._framed_pair, masked, pairs),
            *(
                self.framed(text, part.document)
                for text, part in zip(masked[len(pairs) :], alone, strict=True)
            ),
        ]
