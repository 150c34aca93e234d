"""Texts whose tokens are told apart, and what `infilling` makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from megapt.data import Example, Piece, Window
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, make_piece

V = VOCABULARY
PLAIN: dict[str, Any] = {"permute_sentences": 0.0, "random_replace_prob": 0.0}
"""Masks alone."""


def distinct(n: int, words: list[int] | None = None, sentences: tuple[int, ...] = (0,)) -> Piece:
    """A text whose tokens are told apart; by default each is a word."""
    return make_piece(V.ordinary[:n].tolist(), words=words, sentences=sentences)


def source_of(example: Example) -> list[int]:
    """What is between [CLS] and [SEP]."""
    source: list[int] = example.tokens[example.visible][1:-1].tolist()
    return source


def sources(piece: Piece, count: int, **settings: Any) -> list[list[int]]:
    """`count` sources of a piece, which stands 50 times in a window."""
    objective, window = build("infilling", **settings), Window(0, 0, (piece,) * 50)
    drawn: list[list[int]] = []
    while len(drawn) < count:
        drawn += map(source_of, examples_of(objective, window, len(drawn)))
    return drawn[:count]


def hidden_words(source: list[int], piece: Piece) -> int:
    """Words of a text of distinct tokens that the source lacks; all of each word, or nothing."""
    gone = ~np.isin(piece.tokens, source)
    word = piece.word_starts.cumsum()
    assert not set(word[gone]) & set(word[~gone]), "words are hidden as a whole"
    return len(set(word[gone]))


THREE = distinct(9, sentences=(0, 2, 5))
"""Sentences of 2, 3 and 4 words."""
