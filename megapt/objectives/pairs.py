"""Pairs of texts, and the question whether B stands after A. Shared by `nsp`, `sop` and `bert`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from megapt.data import CounterRng, Example, HeadSpec, Piece, Targets, Vocabulary, make_example
from megapt.data.example import Bools, Ints, concatenate
from megapt.objectives.base import Context, ObjectiveError
from megapt.objectives.ragged import Texts, firsts

Task = Literal["nsp", "sop"]
Reading = Literal["pair", "cls"]
Pairing = Literal["balanced", "bert"]

RIGHT, WRONG = 0, 1
ANSWERS: Mapping[Task, tuple[str, str]] = {
    "nsp": ("next", "random"),
    "sop": ("ordered", "swapped"),
}

FEWEST = 0.1
"""Share of windows below which `nsp` is refused: at most so many hold two documents."""
_TARGETS = tuple(
    Targets(np.zeros(1, dtype=np.int64), np.array([label])) for label in (RIGHT, WRONG)
)


@dataclass(frozen=True)
class Part:
    """Tokens with their word marks: one side of a pair, both, or a text that forms none."""

    tokens: Ints
    """Any integer type [n], n >= 1."""
    word_starts: Bools
    """bool [n]; the first token begins a word, also after a cut."""
    document: int

    def first(self, n: int) -> Part:
        """Return what is left of the first `n` tokens."""
        return Part(self.tokens[:n], self.word_starts[:n], self.document)


@dataclass(frozen=True)
class Pair:
    """A, B and the answer."""

    a: Part
    b: Part
    label: int
    """RIGHT if B stands after A in its document, else WRONG."""

    def with_other(self, b: Part, longest: int) -> Pair:
        """Return the wrong pair of A and `b`, cut from its end to `longest` tokens in all.

        A is shorter than its piece, and that no longer than a window: something of `b` is left.
        """
        return Pair(self.a, b.first(longest - len(self.a.tokens)), WRONG)

    def swapped(self) -> Pair:
        """Return the wrong pair of B and A."""
        return Pair(self.b, self.a, WRONG)

    def joined(self) -> Part:
        """Return A and B as one text."""
        a, b = self.a, self.b
        tokens = np.concatenate([a.tokens, b.tokens])
        words = np.concatenate([a.word_starts, b.word_starts])
        return Part(tokens, words, a.document)


def cut_pieces(
    pieces: Sequence[Piece], task: Task, rng: CounterRng
) -> tuple[list[Pair], list[Part]]:
    """Cut every piece in two at a random sentence start, all but the first being equally likely.

    `nsp` needs two pairs, as a single one could not be told from any other. `sop` leaves out
    sentences that betray their place: the last one of a piece that does not end its document may
    be broken off. So may be the first one if the piece does not begin the document; if it does, it
    begins with the space that SentencePiece puts before a text, which Chinese has nowhere else.

    Returns:
        The right pairs, and in the order of the text what stands in none: pieces of less than two
        such sentences and, for `sop`, what is left out of the others.
    """
    if not pieces:
        return [], []
    texts = Texts.of(pieces)
    counts = np.add.reduceat(texts.sentence_starts, texts.firsts, dtype=np.int64)
    # Numbers of sentences, counted through the window: those of a piece are first to stop - 1.
    first = firsts(counts)
    stop = first + counts
    if task == "sop":
        first = first + 1
        stop = stop - [not piece.ends_document for piece in pieces]
    can = stop - first > 1
    if task == "nsp" and can.sum() < 2:
        can[:] = False
    drawn = rng.uniform(len(pieces))
    second = first + 1 + (drawn * (stop - first - 1)).astype(np.int64)
    borders = np.append(np.flatnonzero(texts.sentence_starts), len(texts.tokens))
    # A piece without a pair has borders, too, but they are not used.
    places = borders[np.minimum([first, second, stop], len(borders) - 1)].T.tolist()
    pairs: list[Pair] = []
    alone: list[Part] = []
    begin = 0
    for piece, paired, (start, cut, end) in zip(pieces, can.tolist(), places, strict=True):
        tokens, words, document = texts.tokens, texts.word_starts, piece.document
        close = begin + len(piece.tokens)
        if not paired:
            alone.append(Part(piece.tokens, piece.word_starts, document))
        else:
            a = Part(tokens[start:cut], words[start:cut], document)
            pairs.append(Pair(a, Part(tokens[cut:end], words[cut:end], document), RIGHT))
            alone += [
                Part(tokens[here:there], words[here:there], document)
                for here, there in ((begin, start), (end, close))
                if here < there
            ]
        begin = close
    return pairs, alone


def check_partners(name: str, context: Context) -> None:
    """Refuse windows that hardly ever hold two documents.

    Every border between two documents lies in one window, so at most documents * W / tokens of the
    windows hold a part of two.

    Raises:
        ObjectiveError: if that is below `FEWEST`. What is unknown is not checked.
    """
    c = context
    if not (c.documents and c.tokens and c.window):
        return
    share = c.documents * c.window / c.tokens
    if share < FEWEST:
        mean = round(c.tokens / c.documents)
        raise ObjectiveError(
            f"'{name}' pairs documents of one window, but {c.documents} training documents have "
            f"{mean} tokens on average, so at most {share:.1%} of the windows of {c.window} tokens "
            f"hold two; set data.window nearer to {mean}, or ask for the order of sentences "
            f"('sop'), which needs one document"
        )


def pair_head(task: Task, reading: Reading, weight: float = 1.0) -> HeadSpec:
    """Return the head: BERT's at [CLS], or one that compares the mean states of A and B."""
    kind: Literal["pair", "sequence"] = "pair" if reading == "pair" else "sequence"
    return HeadSpec(task, kind, 2, weight, ANSWERS[task])


def answer(label: int) -> Targets:
    """Return the target of the head: the label, at [CLS]."""
    return _TARGETS[label]


def pair_example(
    v: Vocabulary, a: Ints, b: Ints, targets: Mapping[str, Targets], document: int
) -> Example:
    """Return [CLS] A [SEP] (segment 0) B [SEP] (segment 1)."""
    tokens = concatenate(v.cls, a, v.sep, b, v.sep)
    segments = np.zeros(len(tokens), dtype=np.uint8)
    segments[len(a) + 2 :] = 1
    return make_example(tokens, "bidirectional", targets, segments=segments, document=document)


def asked(v: Vocabulary, pair: Pair, task: Task) -> Example:
    """Return the example of a pair that is asked nothing else."""
    targets: dict[str, Targets] = {task: answer(pair.label)}
    return pair_example(v, pair.a.tokens, pair.b.tokens, targets, pair.a.document)
