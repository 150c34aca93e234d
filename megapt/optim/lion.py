"""Lion (Chen et al. 2023, algorithm 2): the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Callable

import torch

from megapt.distributed.ranks import Ranks
from megapt.optim.base import Groups, OptimizerFactory


class LionOptimizer(torch.optim.Optimizer):
    """Every element is updated independently, so ZeRO may cut parameters anywhere.

    Args:
        groups: parameter groups.
        lr: learning rate.
        betas: coefficients of the interpolation and of the momentum.
    """

    def __init__(self, groups: Groups, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            rate, (beta1, beta2) = group["lr"], group["betas"]
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["exp_avg"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["exp_avg"] for weight in weights]
            updates = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-rate)
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)


class Lion(OptimizerFactory):
    """It has one state. Use about a third of AdamW's learning rate, and three times its decay."""

    name = "lion"
    state_bytes = 4

    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return the optimizer; see `OptimizerFactory`."""
        settings = self.settings
        return LionOptimizer(groups, settings.lr, (settings.beta1, settings.beta2))
