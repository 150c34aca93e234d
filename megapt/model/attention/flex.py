"""FlexAttention (Dong et al. 2024): one compiled kernel that skips the blocks of other examples.

On CUDA it is compiled. On a CPU, torch has neither a fused kernel nor a backward pass: the backend
then computes all pairs, for tests, and cannot train.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from megapt.data import Batch
from megapt.errors import ConfigError
from megapt.model.attention.backend import Backend, Use, example_ids, in_rows

BLOCK = 128
"""Queries, and keys, of one block."""


def _key_blocks(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of key blocks of each query block, and all indices, those blocks first."""
    order = blocks.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), order.to(torch.int32)


def block_mask(ids: Tensor, visible: Tensor) -> BlockMask:
    """Return the mask of rows of examples, computed from the first and last example of each block.

    The cost is quadratic in the number of blocks; no mask of all pairs is built.

    Args:
        ids: index in the batch of the example of each place, int64 [rows, n].
        visible: keys that all queries of their example may see, bool [rows, n].
    """
    n = ids.shape[1]
    rest = -n % BLOCK
    # The padding of the last block gets an example id larger than all others: there are at most
    # as many examples as places.
    blocks = functional.pad(ids, (0, rest), value=ids.numel()).view(len(ids), -1, BLOCK)
    shown = functional.pad(visible, (0, rest)).view(len(ids), -1, BLOCK)
    first, last = blocks[..., 0], blocks[..., -1]
    number = torch.arange(blocks.shape[1], device=ids.device)
    below, here = number[:, None] > number, number[:, None] == number
    # A query block (rows of the matrix) and a key block share an example if neither ends before
    # the other begins. They hold a single example if their first and last ids are all equal.
    shared = (first[:, :, None] <= last[:, None, :]) & (first[:, None, :] <= last[:, :, None])
    single = (first == last)[:, :, None] & (first[:, :, None] == last[:, None, :])
    single &= (first == last)[:, None, :]
    some = shared & (below | here | shown.any(dim=-1)[:, None, :])
    full = single & (below | shown.all(dim=-1)[:, None, :])

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_example = ids[row, query] == ids[row, key]
        return same_example & ((key <= query) | visible[row, key])

    return BlockMask.from_kv_blocks(
        *_key_blocks((some & ~full)[:, None]),
        *_key_blocks(full[:, None]),
        BLOCK_SIZE=BLOCK,
        mask_mod=allowed,
        seq_lengths=(n, n),
    )


@cache
def _compiled() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(flex_attention)
    return compiled


class FlexAttention(Backend):
    """Computes attention in rows, or in the batch as one row, with a `BlockMask`."""

    name = "flex"
    fused = True

    @classmethod
    def problem(cls, use: Use) -> str:
        """Refuse CPUs; see `Backend`."""
        return (
            "cannot train on a CPU; choose 'grouped' or 'rows'" if use.device.type == "cpu" else ""
        )

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.mask = block_mask(in_rows(batch, example_ids(batch)), in_rows(batch, batch.visible))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the attention output; see `Backend`."""
        on_cpu = q.device.type == "cpu"
        if on_cpu and q.requires_grad:
            raise ConfigError(
                "training.attention: 'flex' cannot train on a CPU, where torch has no backward "
                "pass for it; use 'grouped' or 'rows'"
            )
        q, k, v = (in_rows(self.batch, states).transpose(1, 2) for states in (q, k, v))
        if on_cpu:
            out = flex_attention(q, k, v, block_mask=self.mask)
        else:
            out = _compiled()(q, k, v, block_mask=self.mask)
        return out.transpose(1, 2).flatten(0, 1)
