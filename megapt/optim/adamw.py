"""AdamW (Loshchilov & Hutter 2019): Adam with weight decay apart from the gradient."""

from __future__ import annotations

from typing import Any

import torch

from megapt.distributed.cpu_adam import cpu_adam
from megapt.distributed.ranks import Ranks
from megapt.optim.base import Groups, OptimizerFactory


class AdamW(OptimizerFactory):
    """torch's, fused. Offloaded from CUDA it is DeepSpeed's, written for just that.

    DeepSpeed builds that op at the first start. A job without CUDA builds nothing and has torch's.
    """

    name = "adamw"
    state_bytes = 8
    update_bytes = 0

    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return torch's optimizer; see `OptimizerFactory`."""
        settings = self.settings
        adamw: dict[str, Any] = {
            "lr": settings.lr,
            "betas": (settings.beta1, settings.beta2),
            "eps": settings.eps,
        }
        if offloaded and ranks.device.type == "cuda":
            return cpu_adam(groups, **adamw)
        return torch.optim.AdamW(groups, fused=True, **adamw)
