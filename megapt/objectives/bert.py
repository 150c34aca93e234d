"""BERT's pretraining (Devlin et al. 2019): masked tokens and a question about a pair of texts.

L = L_mlm + w * L_pair

The question is that of `nsp`, or that of `sop` as in ALBERT (Lan et al. 2020). Pieces are cut as in
these objectives, but each text is used, and masked, once. A random half of the pairs gets the wrong
answer. Half of an odd number is rounded up or down with equal probability.

For `nsp`, the pairs of this half exchange their second parts in a cycle. One pair alone cannot
exchange, so a half of one pair becomes zero or two pairs with equal probability. The expected share
of wrong pairs is one half. As in `nsp`, a wrong pair of more than W tokens loses the end of its B.
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
    answer_target,
    check_partners,
    cut_pieces,
    pair_example,
    pair_head,
)
from megapt.objectives.reference_pairs import bert_pairs


class BertConfig(MaskingConfig):
    """Settings of the mask, as in `mlm`, and of the pairs of `nsp` or `sop`."""

    pairs: Task = "nsp"
    """The question. `nsp`: does B follow A. `sop`: are A and B in order."""
    pair_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight w of the loss of the pair."""
    pooling: Reading = "cls"
    """What the head reads: `cls`, the state at [CLS], or `pair`; see `nsp`."""
    pairing: Pairing = "balanced"
    """How pairs are formed. `balanced`: from every piece. `bert`: by BERT's published rule, for
    `sop` by ALBERT's."""

    @model_validator(mode="after")
    def _check_compat(self) -> BertConfig:
        if self.compat == "roberta":
            raise ValueError("compat=roberta masks [CLS] too and has no pairs; use it with 'mlm'")
        return self


def exchange(right: list[Pair], longest: int, rng: CounterRng) -> list[Pair]:
    """Let half of the pairs exchange their second parts, so that each text is used once.

    Args:
        right: the right pairs.
        longest: maximum number of tokens of a pair.
        rng: random numbers of the window.

    Returns:
        All pairs, in the order of `right`.
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
    """Pairs of texts, masked as in `mlm`; a text outside the pairs is masked alone."""

    name = "bert"
    segments = 2
    Config = BertConfig

    def __init__(self, config: BertConfig, context: Context) -> None:
        super().__init__(config, context)
        if config.pairs == "nsp" and config.pairing == "bert":
            # In a window of one document, a `random` B would come from the document of A.
            check_partners("bert with pairing=bert", context)

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The token head and the head of the pair."""
        c = self.config
        return (*super().heads, pair_head(c.pairs, c.pooling, c.pair_weight))

    def cost(self, tokens: int) -> Cost:
        """Return the cost of `mlm`, plus one [SEP] and the answer of the pair.

        For `sop`, the first sentence is an example of its own, with its own [CLS] and [SEP]. With
        BERT's pairing, `nsp` reads on average two pairs of 3 n / 4 tokens each; see `nsp`.
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
        # Tokens of A move by one place, for [CLS]; tokens of B by two, for [CLS] and [SEP].
        targets = {
            "tokens": Targets(text.places + 1 + (text.places >= cut), text.labels),
            self.config.pairs: answer_target(pair.label),
        }
        a, b = text.tokens[:cut], text.tokens[cut:]
        return pair_example(self.vocabulary, a, b, targets, pair.a.document)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per pair and one per text outside the pairs."""
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
