"""Vocabularies, pieces and windows for the tests of objectives: any that the stream can make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from megapt.data import Piece, Vocabulary, Window

VOCABULARY = Vocabulary(
    size=200,
    pad=0,
    unk=1,
    bos=2,
    eos=3,
    cls=4,
    sep=5,
    mask=6,
    modes={"NLU": 7, "NLG": 8, "S2S": 9},
    infilling={"PRE": 10, "SUF": 11, "MID": 12},
    sentinels=list(range(13, 33)),
    reserved=list(range(33)),
)


def marks(length: int, starts: Sequence[int]) -> np.ndarray:
    """True at `starts`, bool [length]."""
    found = np.zeros(length, dtype=np.bool_)
    found[list(starts)] = True
    return found


def make_piece(
    tokens: Sequence[int],
    *,
    words: Sequence[int] | None = None,
    sentences: Sequence[int] = (0,),
    document: int = 0,
    label: int = -1,
    starts_document: bool = True,
    ends_document: bool = True,
) -> Piece:
    """A piece with the places where words (by default all) and sentences start."""
    n = len(tokens)
    return Piece(
        tokens=np.array(tokens, dtype=np.int64),
        word_starts=marks(n, range(n) if words is None else words),
        sentence_starts=marks(n, sentences),
        document=document,
        label=label,
        starts_document=starts_document,
        ends_document=ends_document,
    )


def random_piece(
    length: int,
    seed: int,
    *,
    document: int = 0,
    starts_document: bool = True,
    ends_document: bool = True,
) -> Piece:
    """A piece of random text: words of some two tokens, sentences of some three words."""
    rng = np.random.default_rng([seed, document, length])
    words = rng.random(length) < 0.5
    words[:1] = True
    sentences = words & (rng.random(length) < 0.3)
    sentences[:1] = True
    return Piece(
        tokens=VOCABULARY.ordinary[rng.integers(0, len(VOCABULARY.ordinary), length)],
        word_starts=words,
        sentence_starts=sentences,
        document=document,
        label=int(rng.integers(0, 2)),
        starts_document=starts_document,
        ends_document=ends_document,
    )


def cuts(lengths: Sequence[int], size: int, policy: str) -> list[list[tuple[int, int, int]]]:
    """Windows of W = `size`: (document, start, stop) of their pieces, one token after another.

    `fill`: the tokens in a row are cut every W. `whole`: documents longer than W are cut in pieces
    of W, and window k is made of the pieces that begin in [kW, (k + 1)W).
    """
    found: list[list[tuple[int, int, int]]] = [[] for _ in range(-(-sum(lengths) // size))]
    at = 0
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            room = size - at % size if policy == "fill" else size
            stop = min(length, start + room)
            found[at // size].append((document, start, stop))
            at += stop - start
            start = stop
    return found


def cut_random_documents(
    lengths: Sequence[int], size: int, policy: str, seed: int = 0
) -> list[Window]:
    """The windows of W = `size` of random documents of these lengths."""
    windows = []
    for number, found in enumerate(cuts(lengths, size, policy)):
        pieces = [
            random_piece(
                stop - start,
                seed + start,
                document=document,
                starts_document=start == 0,
                ends_document=stop == lengths[document],
            )
            for document, start, stop in found
        ]
        windows.append(Window(0, number, tuple(pieces)))
    return windows


@st.composite
def sized_windows(draw: st.DrawFn) -> tuple[int, Window]:
    """(W, a window): any piece lengths from 1 to W, cut or whole."""
    size = draw(st.integers(16, 64))
    lengths = st.one_of(
        st.integers(1, 4),
        st.integers(1, 2 * size),
        st.sampled_from([size - 1, size, size + 1]),
    )
    documents = draw(st.lists(lengths, min_size=1, max_size=12))
    policy = draw(st.sampled_from(["fill", "whole"]))
    windows = cut_random_documents(documents, size, policy, draw(st.integers(0, 1000)))
    return size, windows[draw(st.integers(0, len(windows) - 1))]


windows = sized_windows().map(lambda drawn: drawn[1])
pieces = st.builds(random_piece, st.integers(1, 60), st.integers(0, 1000))
keys = st.integers(0, 2**64 - 1)
