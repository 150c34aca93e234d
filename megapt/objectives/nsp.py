"""Next-sentence prediction (Devlin et al. 2019): does text B follow text A?

L = -log P(next | A, B)

Each piece of at least two sentences is cut in two at a random sentence start. Every first part A
then stands in two pairs: with its own second part B, and with the B of another piece, the pieces
being joined in a random cycle. So both answers are equally frequent in every window, every A and
every B occurs once under each, neither alone betrays the answer, and a wrong B always comes from
another document. Pieces of one sentence, and a single piece that has no partner, form no pair. A
wrong pair of more than W tokens loses the end of its B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from megapt.config import Section
from megapt.data import CounterRng, Example, HeadSpec, Targets, Window, make_example
from megapt.data.example import Bools, Ints, lay
from megapt.objectives.base import Objective

NEXT, RANDOM = 0, 1
Reading = Literal["pair", "cls"]


@dataclass(frozen=True)
class Part:
    """Tokens with their word marks: one side of a pair, or both."""

    tokens: Ints
    """Any integer type [n]."""
    word_starts: Bools
    """bool [n]."""


@dataclass(frozen=True)
class Pair:
    """A, B and whether B follows A."""

    a: Part
    b: Part
    label: int
    document: int
    """That A comes from."""

    def with_other(self, b: Part, window: int) -> Pair:
        """Return the wrong pair of A and `b`, cut from its end to `window` tokens in all.

        A is shorter than its piece, and that no longer than a window: something of `b` is left.
        """
        room = window - len(self.a.tokens)
        cut = Part(b.tokens[:room], b.word_starts[:room])
        return Pair(self.a, cut, RANDOM, self.document)

    def joined(self) -> Part:
        """Return A and B as one text."""
        return Part(
            lay(self.a.tokens, self.b.tokens),
            np.concatenate([self.a.word_starts, self.b.word_starts]),
        )


def cut_pieces(window: Window, rng: CounterRng) -> tuple[list[Pair], list[int]]:
    """Cut every piece at a random sentence start.

    Returns:
        The true pairs, and the numbers of the pieces that have one sentence only. If there is but
        one pair, which could not be told from any other, its piece is returned among those.
    """
    pairs: list[Pair] = []
    cut_at: list[int] = []
    alone: list[int] = []
    for number, piece in enumerate(window.pieces):
        starts = np.flatnonzero(piece.sentence_starts)[1:]
        if not len(starts):
            alone.append(number)
            continue
        cut = int(starts[rng.integer(0, len(starts))])
        a = Part(piece.tokens[:cut], piece.word_starts[:cut])
        b = Part(piece.tokens[cut:], piece.word_starts[cut:])
        pairs.append(Pair(a, b, NEXT, piece.document))
        cut_at.append(number)
    if len(pairs) < 2:
        return [], sorted(alone + cut_at)
    return pairs, alone


def nsp_head(reading: Reading, weight: float = 1.0) -> HeadSpec:
    """Return the head: BERT's at [CLS], or one that compares the mean states of A and B."""
    kind: Literal["pair", "sequence"] = "pair" if reading == "pair" else "sequence"
    return HeadSpec("nsp", kind, 2, weight, ("next", "random"))


def nsp_target(label: int) -> Targets:
    """Return the target of the head `nsp`: the label, at [CLS]."""
    return Targets(np.zeros(1, dtype=np.int64), np.array([label]))


def pair_example(
    a: Ints, b: Ints, cls: int, sep: int, targets: dict[str, Targets], document: int
) -> Example:
    """Return [CLS] A [SEP] (segment 0) B [SEP] (segment 1)."""
    tokens = lay(cls, a, sep, b, sep)
    segments = np.zeros(len(tokens), dtype=np.uint8)
    segments[len(a) + 2 :] = 1
    return make_example(tokens, "bidirectional", targets, segments=segments, document=document)


class NspConfig(Section):
    """Settings of `nsp`."""

    reading: Reading = "pair"
    """Where the head reads: `pair`, the mean states of A and of B (Conneau et al. 2017), which
    learns from far fewer pairs; or `cls`, the state at [CLS], as BERT does."""


class Nsp(Objective):
    """The pair task alone; `bert` joins it to masking."""

    name = "nsp"
    attention = "bidirectional"
    Config = NspConfig

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head of two classes."""
        return (nsp_head(self.config.reading),)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return two examples a pair: the true one and the wrong one."""
        true, _ = cut_pieces(window, rng)
        v = self.vocabulary
        examples = []
        cycle = rng.permutation(len(true))
        partner = np.empty_like(cycle)
        partner[cycle] = np.roll(cycle, 1)
        for pair, other in zip(true, partner.tolist(), strict=True):
            for asked in (pair, pair.with_other(true[other].b, self.context.window)):
                a, b = asked.a.tokens, asked.b.tokens
                targets = {"nsp": nsp_target(asked.label)}
                examples.append(pair_example(a, b, v.cls, v.sep, targets, asked.document))
        return examples
