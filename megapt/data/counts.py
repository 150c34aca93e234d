"""Counts of what a batch holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from megapt.data.example import Bools, Ints


@dataclass(frozen=True)
class Counts:
    """Amounts in a batch, on the axes that do not depend on the model or the clock."""

    raw_tokens: int = 0
    """Tokens of text in the windows."""
    positions: int = 0
    """Positions of the examples, without fillers."""
    targets: int = 0
    """Predictions, over all heads."""
    token_targets: int = 0
    """Predictions over the vocabulary only."""
    pairs: int = 0
    """(query, key) pairs that attention allows."""
    slots: int = 0
    """Positions that the model computes: those of the examples and of the fillers of rows.
    Packing efficiency is positions / slots."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def attended_pairs(lengths: Ints, visible: Bools) -> int:
    """Return the number of (query, key) pairs that the attention of some examples allows.

    Args:
        lengths: positions of each example, int64 [examples].
        visible: `Example.visible` of the examples, concatenated, bool [sum of lengths].
    """
    firsts = np.cumsum(lengths) - lengths
    shown = np.add.reduceat(visible, firsts, dtype=np.int64)
    # The causal pairs, and for each visible key j of an example the j queries before it.
    causal = (lengths * (lengths + 1) // 2).sum()
    return int(causal + np.flatnonzero(visible).sum() - firsts @ shown)
