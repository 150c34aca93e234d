"""Attention on whole rows with a mask. The number of rows determines all shapes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from megapt.data import Batch
from megapt.errors import ConfigError
from megapt.model.attention.backend import Backend, example_ids, in_rows


class RowAttention(Backend):
    """Computes attention in rows; pairs of two examples are computed and masked."""

    name = "rows"
    drops = True
    rows = True

    def __init__(self, batch: Batch) -> None:
        if not batch.row_length:
            raise ConfigError(
                "training.attention: 'rows' needs batches in rows; set training.row_length"
            )
        self.batch = batch
        ids, visible = in_rows(batch, example_ids(batch)), in_rows(batch, batch.visible)
        length = batch.row_length
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        same_example = ids[:, :, None] == ids[:, None, :]
        self.mask = (same_example & (causal | visible[:, None, :]))[:, None]
        """Keys that each query may see, bool [rows, 1, row length, row length]."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the attention output; see `Backend`."""
        q, k, v = (in_rows(self.batch, states).transpose(1, 2) for states in (q, k, v))
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask, dropout_p=dropout
        )
        return out.transpose(1, 2).flatten(0, 1)
