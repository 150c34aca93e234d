"""The attention layer, and the state that all layers share for a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from megapt.config import ModelConfig
from megapt.data import Batch
from megapt.model.attention.backend import Backend
from megapt.model.attention.grouped import GroupedAttention
from megapt.model.attention.ulysses import UlyssesAttention
from megapt.model.embeddings import rotary_angles, rotate
from megapt.model.layout import QUERIES
from megapt.model.sequence import SequenceGroup

Prepared = Backend | UlyssesAttention
"""A backend prepared for a batch: all stacks of blocks that read the batch share it."""


@dataclass(frozen=True)
class AttentionPlan:
    """What all layers of a stack share: the prepared backend and the rotary positions."""

    backend: Prepared
    rotary: tuple[Tensor, Tensor] | None
    """Cosines and sines of the positions of this rank, float32 [n, 1, head width]."""


def prepare_attention(
    batch: Batch,
    backend: type[Backend] = GroupedAttention,
    sequence: SequenceGroup = SequenceGroup(),
) -> Prepared:
    """Return the backend prepared for a batch whose positions the ranks of `sequence` share.

    Raises:
        ConfigError: if the backend does not support the batch.
    """
    whole = backend(batch)
    return whole if sequence.size == 1 else UlyssesAttention(whole, sequence, len(batch.tokens))


def plan_attention(
    batch: Batch,
    config: ModelConfig,
    prepared: Prepared,
    sequence: SequenceGroup = SequenceGroup(),
) -> AttentionPlan:
    """Return the plan of a batch for a stack of blocks of this configuration."""
    rotary = None
    if config.positions == "rotary":
        width = config.hidden_size // config.num_heads
        rotary = rotary_angles(sequence.slice(batch.positions), width, config.rope_theta)
    return AttentionPlan(prepared, rotary)


def _attend(plan: AttentionPlan, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    return plan.backend.attend(q, k, v, dropout)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.groups = config.num_heads // QUERIES
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)
        self.attend = _attend
        """Computes attention of queries, keys and values with a plan; compilation replaces it."""

    def forward(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """Return [N, hidden] from x [N, hidden]."""
        fused = self.qkv(x).view(len(x), self.groups, QUERIES + 2, -1)
        q, k, v = (part.flatten(1, 2) for part in fused.split((QUERIES, 1, 1), dim=2))
        if plan.rotary is not None:
            q, k = rotate(q, *plan.rotary), rotate(k, *plan.rotary)
        dropout = self.dropout if self.training else 0.0
        result: Tensor = self.output(self.attend(plan, q, k, v, dropout).flatten(1))
        return result
