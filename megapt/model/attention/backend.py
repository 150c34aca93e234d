"""What an attention backend is: one way to compute the same attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from megapt.config import ModelConfig
from megapt.data import Attention, Batch


@dataclass(frozen=True)
class Use:
    """What a run asks of its backend."""

    config: ModelConfig
    attention: Attention
    """Of the examples; `prefix` includes the others."""
    device: torch.device
    """That computes."""
    dtype: torch.dtype
    """Of queries, keys and values."""
    sequence_ranks: int
    """That share the positions of a batch."""


class Backend(ABC):
    """Attention over the examples of one batch, prepared once and shared by all layers.

    Those of a generator are among them: the trunk then reads other tokens at the same places.

    A subclass is one file of this folder; its `name` registers it.

    Query i sees key j of its example if j <= i or `visible[j]`, and nothing of other examples.

    Args:
        batch: on the device that the states will be on.

    Raises:
        ConfigError: if the backend cannot compute this batch, or not on its device.
    """

    name: ClassVar[str]
    """What users type."""
    drops: ClassVar[bool] = False
    """Whether it can drop attention weights."""
    rows: ClassVar[bool] = False
    """Whether it wants batches in rows of a fixed length."""
    fused: ClassVar[bool] = False
    """Whether one kernel finds the examples, which keeps for the backward pass its inputs, its
    result and a number a row; plans count on it."""

    @classmethod
    def problem(cls, use: Use) -> str:
        """Return what forbids this backend in a run, and what would be right; else "".

        Args:
            use: of the backend in the run.
        """
        return ""

    @abstractmethod
    def __init__(self, batch: Batch) -> None: ...

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return softmax(q k^T / sqrt(width)) v, [N, heads, width].

        Args:
            q: queries [N, heads, width].
            k: keys, likewise.
            v: values, likewise.
            dropout: share of the attention weights to drop; 0 unless `drops`.
        """


def example_ids(batch: Batch) -> Tensor:
    """Return for each place the number of its example, int64 [N]."""
    return torch.repeat_interleave(batch.starts.diff(), output_size=len(batch.tokens))


def in_rows(batch: Batch, values: Tensor) -> Tensor:
    """Return `values` [N, ...] row by row, [rows, row length, ...]; without rows all is one."""
    return values.view(-1, batch.row_length or len(values), *values.shape[1:])
