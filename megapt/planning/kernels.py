"""What fused kernels keep for the backward pass, for tensors that have no storage.

On such tensors torch takes its operations apart, as far as it can. A fused kernel keeps less: its
inputs, its result and a statistic of each row. Each stand-in keeps just that.
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
    """CUDA's fused RMSNorm: keeps its input and a float32 a row."""

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

    The kernel is that of a CPU. Those of CUDA keep as much, and recomputation knows it by name.
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
    """Stands in for backends that are `fused`."""

    def __init__(self, batch: Batch) -> None:
        pass

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the shape of the mixed values."""
        q, k, v = (states.transpose(0, 1)[None] for states in (q, k, v))
        return _attend(q, k, v)[0].transpose(0, 1)


@contextmanager
def kernels_of(device: str) -> Iterator[None]:
    """Inside, tensors without storage are kept as the kernels of `cpu` or `cuda` keep them."""
    functions: dict[str, Any] = {"scaled_dot_product_attention": _attend}
    if device == "cuda":
        functions["rms_norm"] = _normalize
    with patch.multiple(functional, **functions):
        yield
