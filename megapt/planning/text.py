"""Made-up text of the lengths that a corpus has: what a plan and a dry run compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megapt.data import Batch, CounterRng, Piece, Rows, TextFacts, Vocabulary, Window, collate
from megapt.errors import ConfigError
from megapt.objectives import Objective

_WORD, _SENTENCE = 2, 16
"""Tokens of a made-up word and of a sentence; a sentence is whole words."""
_SENTINELS = 100
"""As many as a tokenizer has by default."""


@dataclass(frozen=True)
class MadeUpText:
    """What stands for the facts of a corpus that is not there."""

    vocabulary: Vocabulary
    labels: Sequence[str]
    documents: int
    """Training documents; 0 if unknown."""
    tokens: int
    """Tokens of training text; 0 if unknown."""
    unlabeled: int
    label_counts: Sequence[int]


def piece_length(text: TextFacts, window: int) -> int:
    """Return the tokens of a piece: those of a document on average, at most W = `window`."""
    if not text.documents:
        return window
    return min(window, max(1, round(text.tokens / text.documents)))


def _stand_in(size: int) -> Vocabulary:
    """Return a vocabulary of `size` ids that has every piece an objective may need."""
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
    """Return what stands for a corpus that is not there.

    Args:
        vocabulary: number of token ids.
        labels: document classes.

    Raises:
        ConfigError: if the vocabulary has no room for what objectives need.
    """
    least = 2 * (_SENTINELS + 13)
    if vocabulary < least:
        raise ConfigError(f"--vocabulary: should be at least {least}, not {vocabulary}")
    names = [str(number) for number in range(labels)]
    return MadeUpText(_stand_in(vocabulary), names, 0, 0, 0, [])


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
    """Return what an objective makes of full windows.

    Args:
        text: whose lengths the documents have; they are shorter where the objective needs several
            in a window.
        objective: makes the examples.
        size: tokens W of a window.
        windows: how many.
        rows: that the examples are packed into; without, they lie end to end.

    Raises:
        ConfigError: if it makes nothing of them.
    """
    whole = piece_length(text, size)
    for length in (whole, max(1, min(whole, size // 4))):
        made = [
            objective.examples(_window(text, size, length, index), CounterRng(0, index))
            for index in range(windows)
        ]
        if any(made):
            break
    else:
        raise ConfigError(
            f"objective: '{objective.name}' makes nothing of windows of {size} tokens"
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
