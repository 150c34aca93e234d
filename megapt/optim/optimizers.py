"""The optimisers that run under ZeRO, each of them on what a rank holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from megapt.config import Origins, RunConfig
from megapt.distributed.cpu_adam import cpu_adam
from megapt.distributed.ranks import Ranks
from megapt.optim.muon import Muon
from megapt.optim.parameter_groups import parameter_groups

STATE_BYTES = {"adamw": 8, "lion": 4, "adafactor": 4, "muon": 4}
"""Of the states of one parameter; Muon's few parameters that Adam updates are left out."""


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, algorithm 2): the sign of an interpolated momentum.

    Every element is updated by itself, so it may be sharded in any way.

    Args:
        groups: of parameters.
        lr: learning rate.
        betas: of the interpolation and of the momentum.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
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


def check_optimizer(config: RunConfig, stage: int, origins: Origins) -> None:
    """Refuse an optimiser that needs whole matrices where ZeRO cuts them.

    Args:
        config: of the run.
        stage: of ZeRO that is run.
        origins: of the configuration.

    Raises:
        ConfigError: saying what it works with.
    """
    name, parallel = config.optimizer.name, config.parallel
    reordered = {"round_robin_gradients", "parameter_alignment"}
    problem = ""
    if name == "adafactor" and stage:
        problem = "'adafactor' needs whole matrices: parallel.zero_stage 0 and precision fp32"
    elif name == "muon" and stage == 3:
        problem = "'muon' needs whole matrices; set parallel.zero_stage to 2 or less"
    elif name == "muon" and parallel.offload_optimizer != "none":
        problem = "'muon' works on the ranks' devices; set parallel.offload_optimizer to none"
    elif name == "muon" and reordered & set(config.deepspeed.get("zero_optimization", ())):
        problem = "'muon' needs parameters end to end, in order; see deepspeed.zero_optimization"
    if problem:
        raise origins.error("optimizer.name", problem)
    if config.optimizer.average and parallel.offload_optimizer == "nvme":
        raise origins.error(
            "optimizer.average", "weights on NVMe are not averaged; offload the optimiser to 'cpu'"
        )


def make_optimizer(model: nn.Module, config: RunConfig, ranks: Ranks) -> torch.optim.Optimizer:
    """Return the optimiser of the run, over the groups of `parameter_groups`.

    AdamW is fused. Offloaded to the CPU from CUDA it is DeepSpeed's own, written for just that,
    whose op is built at the first start. A job without CUDA builds nothing and has torch's.

    Args:
        model: that the engine will be given; its parameters may still move to another device.
        config: of the run.
        ranks: of the job.
    """
    settings = config.optimizer
    groups = parameter_groups(model, settings)
    betas = (settings.beta1, settings.beta2)
    cuda = ranks.device.type == "cuda"
    if settings.name == "lion":
        return Lion(groups, settings.lr, betas)
    if settings.name == "adafactor":
        return torch.optim.Adafactor(groups, lr=settings.lr)
    adamw: dict[str, Any] = {"lr": settings.lr, "betas": betas, "eps": settings.eps}
    if settings.name == "muon":
        return Muon(groups, settings.momentum, ranks, fused=True, **adamw)
    if cuda and config.parallel.offload_optimizer != "none":
        return cpu_adam(groups, **adamw)
    return torch.optim.AdamW(groups, fused=True, **adamw)
