"""Attention whose positions lie on several ranks: DeepSpeed Ulysses (Jacobs et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from megapt.model.attention.backend import Backend
from megapt.model.sequence import SequenceGroup


class UlyssesAttention:
    """Exchanges slices of all heads for all positions of some heads, attends, and changes back.

    The exchange wants equal slices; what fills the last ones up takes no part.

    Args:
        whole: attends over all positions.
        sequence: the ranks, whose number divides the heads.
        count: positions in all, N.
    """

    def __init__(self, whole: Backend, sequence: SequenceGroup, count: int) -> None:
        self.whole, self.sequence, self.count = whole, sequence, count
        self.exchanged = sequence.exchanged(self._attend)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return [filled N, heads / ranks, width] from states likewise."""
        q, k, v = (states[: self.count] for states in (q, k, v))
        return self.sequence.filled(self.whole.attend(q, k, v, dropout))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the mixed values of the slice of this rank; see `Backend`."""
        return self.exchanged(q, k, v, dropout)
