"""Activation checkpointing: the backward pass recomputes activations instead of storing them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from megapt.config.training import Recompute

_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"})
_ATTENTION = frozenset(
    {
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "flex_attention",
        "torch_attn::_varlen_attn",
    }
)


class Recomputation:
    """Runs blocks, some of them with activation checkpointing.

    `full` keeps only the input of a block (Chen et al. 2016). `selective` also keeps the results of
    its matrix products and its attention, which are expensive to recompute (Korthikanti et al.
    2022). Recomputation uses the same dropout masks.

    Args:
        kind: what is recomputed.
        every: recomputation applies to the first of every `every` blocks.
        dropout: whether attention drops weights. `selective` then recomputes attention too: its
            kernels draw random numbers, and skipping them would shift all later draws.
    """

    def __init__(self, kind: Recompute = "none", every: int = 1, dropout: bool = False) -> None:
        self.kind, self.every = kind, every
        self._kept = _PRODUCTS if dropout else _PRODUCTS | _ATTENTION
        self._contexts: Callable[[], Any] = noop_context_fn
        if kind == "selective":
            self._contexts = partial(create_selective_checkpoint_contexts, self._policy)

    def keeps(self, operation: Any) -> bool:
        """Return whether `selective` keeps the result of a torch operation."""
        return operation.name() in self._kept

    def _policy(self, _: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = self.keeps(operation)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    def run(self, number: int, block: Callable[..., Tensor], *args: Any) -> Tensor:
        """Return `block(*args)`.

        Args:
            number: index of the block in its stack, from 0.
            block: a callable whose first argument is a tensor.
            args: arguments of the block.
        """
        if self.kind == "none" or number % self.every or not torch.is_grad_enabled():
            return block(*args)
        states: Tensor = checkpoint(block, *args, use_reentrant=False, context_fn=self._contexts)
        return states
