"""Attention over positions that several ranks share: DeepSpeed Ulysses (Jacobs et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from megapt.model.attention.backend import Backend
from megapt.model.sequence import SequenceGroup


class UlyssesAttention:
    """Exchanges slices of all heads for all positions of some heads, attends, and reverses it.

    The exchange requires equal slices; attention excludes the padding of the last ones.

    Args:
        whole: attention over all positions.
        sequence: the ranks; their number divides the number of heads.
        count: total number of positions, N.
    """

    def __init__(self, whole: Backend, sequence: SequenceGroup, count: int) -> None:
        self.whole, self.sequence, self.count = whole, sequence, count
        self._exchanged = sequence.with_exchange(self._attend)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return [padded N, heads / ranks, width] from states of the same shape."""
        q, k, v = (states[: self.count] for states in (q, k, v))
        return self.sequence.padded(self.whole.attend(q, k, v, dropout))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the attention output of this rank's slice; see `Backend`."""
        return self._exchanged(q, k, v, dropout)
