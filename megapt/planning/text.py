"""Made-up text with the document lengths of a corpus, for plans and dry runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megapt.data import Batch, CounterRng, Piece, Rows, TextFacts, Vocabulary, Window, collate
from megapt.errors import ConfigError
from megapt.objectives import Objective

_WORD, _SENTENCE = 2, 16
"""Tokens of a made-up word and of a made-up sentence, which has complete words."""
_SENTINELS = 100
"""The default number of a tokenizer."""


@dataclass(frozen=True)
class MadeUpText:
    """Facts that replace those of a corpus that does not exist."""

    vocabulary: Vocabulary
    labels: Sequence[str]
    documents: int
    """Training documents; 0 if unknown."""
    tokens: int
    """Tokens of training text; 0 if unknown."""
    unlabeled: int
    label_counts: Sequence[int]


def piece_length(text: TextFacts, window: int) -> int:
    """Return the tokens of a piece: the mean length of a document, at most W = `window`."""
    if not text.documents:
        return window
    return min(window, max(1, round(text.tokens / text.documents)))


def _full_vocabulary(size: int) -> Vocabulary:
    """Return a vocabulary of `size` ids with every special piece that an objective may need."""
    ids = iter(range(size))
    names = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
    single = {name: next(ids) for name in names}
    modes = {name: next(ids) for name in ("NLU", "NLG", "S2S")}
    infilling = {name: next(ids) for name in ("PRE", "SUF", "MID")}
    sentinels = [next(ids) for _ in range(_SENTINELS)]
    reserved = list(range(next(ids)))
    return Vocabulary(
        size=size,
        modes=modes,
        infilling=infilling,
        sentinels=sentinels,
        reserved=reserved,
        **single,
    )


def made_up_text(vocabulary: int, labels: int = 0) -> MadeUpText:
    """Return facts that replace those of a corpus that does not exist.

    Args:
        vocabulary: number of token ids.
        labels: number of document classes.

    Raises:
        ConfigError: if the vocabulary is too small for the special pieces of objectives.
    """
    least = 2 * (_SENTINELS + 13)
    if vocabulary < least:
        raise ConfigError(f"--vocabulary: should be at least {least}, not {vocabulary}")
    names = [str(number) for number in range(labels)]
    return MadeUpText(_full_vocabulary(vocabulary), names, 0, 0, 0, [])


def _piece(text: TextFacts, length: int, number: int) -> Piece:
    ordinary = text.vocabulary.ordinary
    places = np.arange(length)
    return Piece(
        tokens=ordinary[(places + number) % len(ordinary)],
        word_starts=places % _WORD == 0,
        sentence_starts=places % _SENTENCE == 0,
        document=number,
        label=number % len(text.labels) if text.labels else -1,
        starts_document=True,
        ends_document=True,
    )


def _window(text: TextFacts, size: int, length: int, index: int) -> Window:
    """Return a full window of documents of `length` tokens."""
    lengths = [length] * (size // length) + [size % length] * (size % length > 0)
    first = index * len(lengths)
    pieces = (_piece(text, n, first + number) for number, n in enumerate(lengths))
    return Window(0, index, tuple(pieces))


def made_up_batch(
    text: TextFacts, objective: Objective, size: int, windows: int, rows: Rows | None = None
) -> Batch:
    """Return the batch that an objective makes from full windows.

    Args:
        text: facts of the corpus; the documents have its mean length, or a shorter one if the
            objective needs several documents in a window.
        objective: makes the examples.
        size: tokens W of a window.
        windows: number of windows.
        rows: rows that the examples are packed into; with None, they are end to end.

    Raises:
        ConfigError: if the objective makes no examples from them.
    """
    usual = piece_length(text, size)
    for length in (usual, max(1, min(usual, size // 4))):
        made = [
            objective.examples(_window(text, size, length, index), CounterRng(0, index))
            for index in range(windows)
        ]
        if any(made):
            break
    else:
        raise ConfigError(
            f"objective: '{objective.name}' makes no examples from windows of {size} tokens"
        )
    return collate(
        [example for examples in made for example in examples],
        pad=text.vocabulary.pad,
        heads=[head.name for head in objective.heads],
        token_heads=[head.name for head in objective.heads if head.over_vocabulary],
        raw_tokens=windows * size,
        per_window=list(map(len, made)),
        rows=rows,
    ).widen()
