"""AdamW (Loshchilov & Hutter 2019): Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any

import torch

from megapt.distributed.cpu_adam import cpu_adam
from megapt.distributed.ranks import Ranks
from megapt.optim.base import Groups, OptimizerFactory


class AdamW(OptimizerFactory):
    """PyTorch's fused AdamW; when offloaded from CUDA, DeepSpeed's optimizer for CPUs.

    DeepSpeed compiles that optimizer at the first start. Without CUDA nothing is compiled, and
    PyTorch's AdamW runs on the CPU.
    """

    name = "adamw"
    state_bytes = 8
    update_bytes = 0

    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return PyTorch's or DeepSpeed's optimizer; see `OptimizerFactory`."""
        settings = self.settings
        adamw: dict[str, Any] = {
            "lr": settings.lr,
            "betas": (settings.beta1, settings.beta2),
            "eps": settings.eps,
        }
        if offloaded and ranks.device.type == "cuda":
            return cpu_adam(groups, **adamw)
        return torch.optim.AdamW(groups, fused=True, **adamw)
