"""Masks of single texts."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from megapt.data import CounterRng, Piece
from megapt.data.example import Bools, Ints
from megapt.objectives import masking
from megapt.objectives.masking import MaskingConfig, choose_tokens
from tests.windows import VOCABULARY, pieces

V = VOCABULARY
UNITS = ["token", "word", "ngram", "span"]
RUNS = ["word", "ngram", "span"]
rates = st.sampled_from([0.01, 0.15, 0.3, 0.5, 0.99])
configs = st.builds(
    MaskingConfig,
    mask_rate=rates,
    unit=st.sampled_from(UNITS),
    max_ngram=st.integers(1, 5),
    span_p=st.sampled_from([0.05, 0.2, 0.9]),
    max_span_length=st.integers(1, 10),
)
some_pieces = st.lists(pieces, min_size=1, max_size=5)


def runs(piece: Piece, config: MaskingConfig, rng: CounterRng) -> Ints:
    return masking.runs(piece.word_starts, np.array([len(piece.tokens)]), config, 0.15, rng)


def choose(n: int, rate: float, rng: CounterRng) -> Bools:
    return choose_tokens(np.array([n]), rate, rng)


def word_numbers(piece: Piece) -> np.ndarray:
    return np.cumsum(piece.word_starts) - 1
