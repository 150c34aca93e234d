"""The interface of attention backends. All backends compute the same attention."""

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
    """What a run requires of its attention backend."""

    config: ModelConfig
    attention: Attention
    """Kind of attention of the examples; `prefix` includes the other kinds."""
    device: torch.device
    """Device of the computation."""
    dtype: torch.dtype
    """Data type of queries, keys and values."""
    sequence_ranks: int
    """Number of ranks that share the positions of a batch."""


class Backend(ABC):
    """Attention over the examples of one batch, prepared once and shared by all layers.

    The layers of a generator share it too: the trunk then reads other tokens at the same places.

    Each subclass is a file in this folder and is registered by its `name`.

    Query i sees key j of the same example if j <= i or `visible[j]`. It sees no other example.

    Args:
        batch: the batch, on the device of the states.

    Raises:
        ConfigError: if the backend does not support the batch or its device.
    """

    name: ClassVar[str]
    """Name in the configuration."""
    drops: ClassVar[bool] = False
    """Whether it supports dropout of attention weights."""
    rows: ClassVar[bool] = False
    """Whether it requires batches in rows of a fixed length."""
    fused: ClassVar[bool] = False
    """Whether one kernel processes all examples and keeps for the backward pass its inputs, its
    result and one number per row. The memory plan relies on it."""

    @classmethod
    def problem(cls, use: Use) -> str:
        """Return why a run cannot use this backend and what to change, or "" if it can.

        Args:
            use: what the run requires.
        """
        return ""

    @abstractmethod
    def __init__(self, batch: Batch) -> None: ...

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return softmax(q k^T / sqrt(width)) v, [N, heads, width].

        Args:
            q: queries [N, heads, width].
            k: keys [N, heads, width].
            v: values [N, heads, width].
            dropout: probability of dropping an attention weight; 0 unless `drops`.
        """


def example_ids(batch: Batch) -> Tensor:
    """Return the index of the example of each place, int64 [N]."""
    return torch.repeat_interleave(batch.starts.diff(), output_size=len(batch.tokens))


def in_rows(batch: Batch, values: Tensor) -> Tensor:
    """Return `values` [N, ...] as [rows, row length, ...]; a batch without rows becomes one row."""
    return values.view(-1, batch.row_length or len(values), *values.shape[1:])
