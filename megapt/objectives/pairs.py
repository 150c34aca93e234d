"""Pairs of texts, and the question whether B follows A. Shared by `nsp`, `sop` and `bert`."""

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

MIN_PARTNER_SHARE = 0.1
"""`nsp` is refused if fewer than this share of the windows can hold two documents."""
_TARGETS = tuple(
    Targets(np.zeros(1, dtype=np.int64), np.array([label])) for label in (RIGHT, WRONG)
)


@dataclass(frozen=True)
class Part:
    """Tokens with their word marks: one side of a pair, both sides, or a text outside the pairs."""

    tokens: Ints
    """Any integer type [n], n >= 1."""
    word_starts: Bools
    """bool [n]; the first token begins a word, even after a cut."""
    document: int
    """Number of the document."""

    def first(self, n: int) -> Part:
        """Return the first `n` tokens, or all if there are fewer."""
        return Part(self.tokens[:n], self.word_starts[:n], self.document)


@dataclass(frozen=True)
class Pair:
    """Texts A and B, and the answer."""

    a: Part
    b: Part
    label: int
    """RIGHT if B follows A in its document, else WRONG."""

    def with_other(self, b: Part, longest: int) -> Pair:
        """Return the wrong pair of A and `b`; the end of `b` is cut to `longest` tokens in total.

        A is shorter than its piece, which has at most W tokens, so a part of `b` always remains.
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
    """Cut every piece in two at a random sentence start; all but the first are equally likely.

    `nsp` needs at least two pairs, because a wrong B comes from another pair. `sop` excludes the
    sentences that reveal their place. The last sentence is excluded if its piece does not end the
    document, since it may be incomplete. The first sentence is always excluded: in the middle of a
    document it may be incomplete, and at its beginning it starts with the space that SentencePiece
    puts before a text, which Chinese text has nowhere else.

    Args:
        pieces: pieces of a window.
        task: the question.
        rng: random numbers of the window.

    Returns:
        The right pairs, and the texts outside the pairs in text order: pieces with fewer than two
        usable sentences and, for `sop`, the excluded sentences of the others.
    """
    if not pieces:
        return [], []
    texts = Texts.of(pieces)
    counts = np.add.reduceat(texts.sentence_starts, texts.firsts, dtype=np.int64)
    # Sentences are numbered over the whole window: a piece has those from first to stop - 1.
    first = firsts(counts)
    stop = first + counts
    if task == "sop":
        first = first + 1
        stop = stop - [not piece.ends_document for piece in pieces]
    makes_pair = stop - first > 1
    if task == "nsp" and makes_pair.sum() < 2:
        makes_pair[:] = False
    drawn = rng.uniform(len(pieces))
    second = first + 1 + (drawn * (stop - first - 1)).astype(np.int64)
    borders = np.append(np.flatnonzero(texts.sentence_starts), len(texts.tokens))
    # The borders of a piece without a pair are not used.
    places = borders[np.minimum([first, second, stop], len(borders) - 1)].T.tolist()
    pairs: list[Pair] = []
    alone: list[Part] = []
    begin = 0
    for piece, paired, (start, cut, end) in zip(pieces, makes_pair.tolist(), places, strict=True):
        tokens, words, document = texts.tokens, texts.word_starts, piece.document
        close = begin + len(piece.tokens)
        if not paired:
            alone.append(Part(piece.tokens, piece.word_starts, document))
        else:
            a = Part(tokens[start:cut], words[start:cut], document)
            pairs.append(Pair(a, Part(tokens[cut:end], words[cut:end], document), RIGHT))
            alone += [
                Part(tokens[left:right], words[left:right], document)
                for left, right in ((begin, start), (end, close))
                if left < right
            ]
        begin = close
    return pairs, alone


def check_partners(name: str, context: Context) -> None:
    """Refuse a corpus whose windows rarely hold two documents.

    Every border between two documents is inside one window. So at most the share documents * W /
    tokens of the windows hold parts of two documents. It is not checked if one of these numbers is
    unknown.

    Args:
        name: name of the objective, for the message.
        context: the corpus and its windows.

    Raises:
        ObjectiveError: if this share is below `MIN_PARTNER_SHARE`.
    """
    c = context
    if not (c.documents and c.tokens and c.window):
        return
    share = c.documents * c.window / c.tokens
    if share < MIN_PARTNER_SHARE:
        mean = round(c.tokens / c.documents)
        raise ObjectiveError(
            f"'{name}' pairs documents of one window, but {c.documents} training documents have "
            f"{mean} tokens on average, so at most {share:.1%} of the windows of {c.window} tokens "
            f"hold two; set data.window closer to {mean}, or use the order of sentences ('sop'), "
            f"which needs only one document"
        )


def pair_head(task: Task, reading: Reading, weight: float = 1.0) -> HeadSpec:
    """Return BERT's head at [CLS], or a head that compares the mean states of A and B."""
    kind: Literal["pair", "sequence"] = "pair" if reading == "pair" else "sequence"
    return HeadSpec(task, kind, 2, weight, ANSWERS[task])


def answer_target(label: int) -> Targets:
    """Return the target of the pair head: the label, at [CLS]."""
    return _TARGETS[label]


def pair_example(
    v: Vocabulary, a: Ints, b: Ints, targets: Mapping[str, Targets], document: int
) -> Example:
    """Return [CLS] A [SEP] (segment 0) B [SEP] (segment 1)."""
    tokens = concatenate(v.cls, a, v.sep, b, v.sep)
    segments = np.zeros(len(tokens), dtype=np.uint8)
    segments[len(a) + 2 :] = 1
    return make_example(tokens, "bidirectional", targets, segments=segments, document=document)


def pair_task_example(v: Vocabulary, pair: Pair, task: Task) -> Example:
    """Return the example of a pair whose only target is the answer."""
    targets: dict[str, Targets] = {task: answer_target(pair.label)}
    return pair_example(v, pair.a.tokens, pair.b.tokens, targets, pair.a.document)
