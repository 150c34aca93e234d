"""Attention whose positions lie on several ranks: DeepSpeed Ulysses (Jacobs et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from megapt.model.attention.backend import Backend
from megapt.model.sequence import SequenceGroup


class UlyssesAttention:
    """Exchanges slices of all heads for all positions of some heads, attends, and changes back.

    DeepSpeed's exchange wants equal slices; what fills the last ones up takes no part.

    Args:
        whole: attends over all positions.
        sequence: the ranks, whose number divides the heads.
        count: positions in all, N.
    """

    def __init__(self, whole: Backend, sequence: SequenceGroup, count: int) -> None:
        # Here, because nothing else of the model knows DeepSpeed.
        from deepspeed.sequence.layer import DistributedAttention

        self.whole, self.sequence, self.count = whole, sequence, count
        self.exchange = DistributedAttention(self._attend, sequence.group)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return [filled N, 1, heads / ranks, width] from states likewise."""
        q, k, v = (states[: self.count, 0] for states in (q, k, v))
        return self.sequence.filled(self.whole.attend(q, k, v, dropout))[:, None]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the mixed values of the slice of this rank; see `Backend`."""
        # Sequence first, then a batch of one, heads, width; no rotary angles.
        q, k, v = (states[:, None] for states in (q, k, v))
        mixed: Tensor = self.exchange(q, k, v, 1, None, dropout)
        return mixed[:, 0]
