"""BERT's published rule for pairing sentences, and ALBERT's variant of it.

`create_instances_from_document` in create_pretraining_data.py of google-research/bert and of
google-research/albert.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np

from megapt.data import CounterRng, Piece
from megapt.objectives.pairs import RIGHT, WRONG, Pair, Part, Task

SHORT_SEQ_PROB = 0.1
"""`short_seq_prob`: share of the documents whose pairs are short."""
MAX_TRIES = 10
"""Maximum number of draws for a document other than that of A."""

Run = tuple[int, int, int]
"""Number of a piece, and the places where a run of its sentences begins and ends."""


def _bert_runs(
    borders: Sequence[Sequence[int]], number: int, task: Task, longest: int, rng: CounterRng
) -> Iterator[tuple[Run, Run, int]]:
    """Yield A, B and the answer for each pair of piece `number`, before the cut to W tokens."""
    own = borders[number]
    sentences = len(own) - 1
    target = rng.integer(2, longest + 1) if rng.chance(SHORT_SEQ_PROB) else longest
    first = 0
    while first < sentences:
        stop = min(bisect_left(own, own[first] + target, first + 1), sentences)
        single = stop - first == 1
        middle = stop if single else first + rng.integer(1, stop - first)
        a = number, own[first], own[middle]
        wrong = single or rng.chance(0.5)
        if wrong and (single or task == "nsp"):
            for _ in range(MAX_TRIES):
                other = rng.integer(0, len(borders))
                if other != number:
                    break
            others = borders[other]
            start = rng.integer(0, len(others) - 1)
            enough = others[start] + target - (own[middle] - own[first])
            end = min(bisect_left(others, enough, start + 1), len(others) - 1)
            yield a, (other, others[start], others[end]), WRONG
            first = middle  # the next pair begins with the sentences that this B replaces
        else:
            b = number, own[middle], own[stop]
            yield (b, a, WRONG) if wrong else (a, b, RIGHT)
            first = stop


def truncated_sizes(a: int, b: int, longest: int) -> tuple[int, int]:
    """Return the sizes of A and B, `a` and `b` tokens before, cut to `longest` tokens in total.

    The longer side loses tokens one by one; of two equal sides, B does.
    """
    return min(a, max(longest - b, (longest + 1) // 2)), min(b, max(longest - a, longest // 2))


def _trimmed(piece: Piece, start: int, stop: int, size: int, rng: CounterRng) -> Part:
    """Return `size` tokens of piece[start:stop]; a coin chooses the end of each removed token."""
    if stop - start > size:
        start += int((rng.bits(stop - start - size) >> 63).sum())
        stop = start + size
    words = piece.word_starts[start:stop]
    if not words[0]:
        words = words.copy()
        words[0] = True
    return Part(piece.tokens[start:stop], words, piece.document)


def bert_pairs(pieces: Sequence[Piece], task: Task, longest: int, rng: CounterRng) -> list[Pair]:
    """Pair sentences by BERT's rule.

    The pieces of the window are the only documents. Sentences of a piece are collected until they
    have W tokens or, in a tenth of the pieces, a uniform number from 2 to W. A is a random number
    of them, B the rest. In half of the cases, and always if only one sentence was collected, B
    instead begins at a random sentence of a random piece, and the rest is collected again for the
    next pair. Up to ten draws look for a piece other than that of A. If a pair has more than W
    tokens, the longer side loses tokens one by one, each from a random end. `sop` is ALBERT's
    variant: it swaps A and B, except if only one sentence was collected.

    Args:
        pieces: pieces of a window.
        task: the question.
        longest: maximum number of tokens of a pair, W >= 2.
        rng: random numbers of the window.

    Returns:
        The pairs, in the order of the text.
    """
    borders = [
        [*np.flatnonzero(piece.sentence_starts).tolist(), len(piece.tokens)] for piece in pieces
    ]
    pairs = []
    for number in range(len(pieces)):
        for one, two, label in _bert_runs(borders, number, task, longest, rng):
            sizes = truncated_sizes(one[2] - one[1], two[2] - two[1], longest)
            a, b = (
                _trimmed(pieces[piece], start, stop, size, rng)
                for (piece, start, stop), size in zip((one, two), sizes, strict=True)
            )
            pairs.append(Pair(a, b, label))
    return pairs
