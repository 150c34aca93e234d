"""Muon: orthogonalized momentum of matrices, even if ZeRO cuts them into parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from megapt.optim.base import Groups, OptimizerFactory
from megapt.optim.parameter_groups import in_block

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024)."""
_ITERATIONS = 5
"""Number of iterations (Jordan et al. 2024)."""


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return a matrix with about the same singular vectors, all its singular values near 1.

    Newton-Schulz iterations in bfloat16 compute it (Jordan et al. 2024). The singular values end at
    about 0.7 to 1.2; those that begin below a hundredth of the norm stay smaller.

    Args:
        matrix: any floating type [rows, columns].

    Returns:
        The result, bfloat16 [rows, columns].
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrix.bfloat16()
    if tall := x.size(0) > x.size(1):
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def _matrix_update(momentum: Tensor) -> Tensor:
    return orthogonalized(momentum) * (0.2 * math.sqrt(max(momentum.shape)))


class MuonOptimizer(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for the groups whose `muon` is true, AdamW for the others.

    The update of a matrix is its orthogonalized Nesterov momentum, times 0.2 sqrt(longer side). It
    is as large as an update of AdamW, so both share one learning rate and weight decay (Liu et al.
    2025, section 2.2).

    Under ZeRO a rank holds a flat partition of a group, whose borders cut through matrices. The
    momentum is partitioned in the same way. The updates of all ranks are gathered; then each rank
    orthogonalizes the matrices that its partition touches, and keeps its own part of the result
    (Liu et al. 2025, algorithm 1).

    Args:
        groups: parameter groups, from `parameter_groups`.
        momentum: momentum of Muon.
        ranks: ranks of the job, which all share each flat group.
        **adamw: settings of AdamW for the other groups.
    """

    def __init__(self, groups: Groups, momentum: float, ranks: Ranks, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self._momentum = momentum
        self._ranks = ranks

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; under ZeRO all ranks must call it."""
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _step_matrices(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                # AdamW loads the states of all groups, and needs a count in each of them.
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(weight)
            state["step"] += 1
            momentum = state["exp_avg"].lerp_(weight.grad, 1 - self._momentum)
            update = weight.grad.lerp(momentum, self._momentum)
            if weight.ndim == 2:
                update = _matrix_update(update)
            else:
                update = self._partition_update(update, group["shapes"])
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update.to(weight.dtype), alpha=-group["lr"])

    def _partition_update(self, momenta: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """Return this rank's part of the orthogonalized updates of a flat group, [size].

        Args:
            momenta: this rank's part of the momenta, [size].
            shapes: shapes of the matrices that the parts of all ranks hold end to end.
        """
        part = momenta.bfloat16()  # `orthogonalized` computes in bfloat16, so nothing is lost.
        whole, world = part, self._ranks.mesh.gradient_world
        if world > 1:
            whole = part.new_empty(part.numel() * world)
            torch.distributed.all_gather(list(whole.chunk(world)), part)
        begin = self._ranks.rank * part.numel()
        end = begin + part.numel()
        result, start = torch.zeros_like(momenta), 0
        for shape in shapes:
            stop = start + math.prod(shape)
            low, high = max(start, begin), min(stop, end)
            if low < high:
                update = _matrix_update(whole[start:stop].view(shape)).flatten()
                result[low - begin : high - begin] = update[low - start : high - start]
            start = stop
        return result


class Muon(OptimizerFactory):
    """Muon for the matrices inside blocks; AdamW for the rest, at the same learning rate."""

    name = "muon"
    state_bytes = 4
    """This ignores the second state of the few parameters that AdamW updates."""
    zero_stages = (0, 1, 2)
    offloads = False

    def problem(self, config: RunConfig, stage: int) -> str:
        """Refuse DeepSpeed settings that change the order of the parameters in a flat group."""
        reordered = {"round_robin_gradients", "parameter_alignment"}
        if reordered & set(config.deepspeed.get("zero_optimization", ())):
            return "needs parameters end to end, in order; see deepspeed.zero_optimization"
        return ""

    def takes(self, name: str, parameter: nn.Parameter) -> bool:
        """Return whether a parameter is a matrix inside a block."""
        return parameter.ndim == 2 and in_block(name)

    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return the optimizer; see `OptimizerFactory`."""
        settings = self.settings
        betas = (settings.beta1, settings.beta2)
        return MuonOptimizer(
            groups,
            settings.momentum,
            ranks,
            fused=True,
            lr=settings.lr,
            betas=betas,
            eps=settings.eps,
        )
