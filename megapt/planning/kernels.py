"""Stand-ins for fused kernels on tensors without storage, with the same memory for backward.

On such tensors, torch decomposes its operations as far as it can. A fused kernel keeps less: its
inputs, its result and a statistic per row. Each stand-in keeps exactly that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from megapt.data import Batch
from megapt.model.attention.backend import Backend


class _RmsNorm(torch.autograd.Function):
    """CUDA's fused RMSNorm: keeps its input, its weight and one float32 per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
        ctx.save_for_backward(x, weight, rows)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Stand in for `scaled_dot_product_attention`, which turns a mask into terms of its scores.

    It calls the CPU kernel. The CUDA kernels keep the same amount, and recomputation recognizes the
    CPU kernel by its name.
    """
    if attn_mask is not None:
        attn_mask = torch.empty(attn_mask.shape, dtype=q.dtype, device=q.device)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out: Tensor = kernel(q, k, v, attn_mask=attn_mask)[0]
    return out


def _normalize(x: Tensor, shape: Any, weight: Tensor, eps: float | None = None) -> Tensor:
    """Stand in for `rms_norm` on CUDA."""
    out: Tensor = _RmsNorm.apply(x, weight)  # type: ignore[no-untyped-call]
    return out


class FusedAttention(Backend):
    """Stand-in for backends that are `fused`."""

    def __init__(self, batch: Batch) -> None:
        pass

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return a result of the right shape, [N, heads, width], without values."""
        q, k, v = (states.transpose(0, 1)[None] for states in (q, k, v))
        return _attend(q, k, v)[0].transpose(0, 1)


@contextmanager
def kernels_of(device: str) -> Iterator[None]:
    """Let tensors without storage be kept inside as by the kernels of `cpu` or `cuda`."""
    functions: dict[str, Any] = {"scaled_dot_product_attention": _attend}
    if device == "cuda":
        functions["rms_norm"] = _normalize
    with patch.multiple(functional, **functions):
        yield
