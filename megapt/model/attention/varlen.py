"""FlashAttention's kernels for concatenated sequences of any lengths (Dao 2023). CUDA only."""

from __future__ import annotations

import torch
from torch import Tensor

from megapt.data import Batch
from megapt.errors import ConfigError
from megapt.model.attention.backend import Backend, Use


class VarlenAttention(Backend):
    """Computes attention on the concatenated examples, with no padding and no mask."""

    name = "varlen"
    fused = True

    @classmethod
    def problem(cls, use: Use) -> str:
        """Refuse CPUs, prefix attention and float32; see `Backend`."""
        if use.device.type == "cpu":
            return "cannot train on a CPU; choose 'grouped' or 'rows'"
        if use.attention == "prefix":
            return "has no prefix attention, which the objective needs; choose 'flex'"
        if use.dtype not in (torch.bfloat16, torch.float16):
            return "computes in bf16 or fp16; set training.precision to one, or choose 'flex'"
        return ""

    def __init__(self, batch: Batch) -> None:
        if batch.tokens.device.type == "cpu":
            raise ConfigError("training.attention: 'varlen' runs on CUDA; on a CPU use 'grouped'")
        if batch.attention == "prefix":
            raise ConfigError(
                "training.attention: 'varlen' computes causal or bidirectional attention, not "
                "prefix attention; use 'grouped', 'rows' or 'flex'"
            )
        self.starts = batch.starts.to(torch.int32)
        self.longest = batch.groups[0].shape[1]
        # How far a query sees to its left and right; -1 means no limit.
        self.window = (-1, 0) if batch.attention == "causal" else (-1, -1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the attention output; see `Backend`."""
        # Imported here because the module takes half a second to import.
        from torch.nn.attention.varlen import varlen_attn

        if q.dtype == torch.float32:
            raise ConfigError("training.attention: 'varlen' needs training.precision: bf16 or fp16")
        starts, longest = self.starts, self.longest
        out = varlen_attn(q, k, v, starts, starts, longest, longest, window_size=self.window)
        assert isinstance(out, Tensor)  # A tuple only if the log-sum-exp is requested too.
        return out
