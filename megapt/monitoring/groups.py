"""Norms of gradients, weights and updates per group of parameters, at every ZeRO stage."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks


def group_of(name: str) -> str:
    """Return the group of a parameter: `embeddings`, `blocks.3`, `final_norm`, `heads.class`.

    A generator's groups begin with its name: `generators.NAME.blocks.0`.
    """
    parts = name.replace("_orig_mod.", "").split(".")  # torch.compile adds this prefix
    if parts[0] == "generators":
        return ".".join([*parts[:2], group_of(".".join(parts[2:]))])
    if parts[0] == "trunk":
        parts = parts[1:]
    return ".".join(parts[:2]) if parts[0] in ("blocks", "heads") else parts[0]


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float32))


class GroupNorms:
    """Measures one update of an engine. All ranks call `before` and `after` together.

    Between the two calls, each rank holds a second copy of the weights that it updates.

    Args:
        ranks: ranks of the job.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._weights: dict[str, Tensor] = {}
        self._sums: dict[str, list[float]] = {}
        """Group -> squared norms of gradient, weights and update, summed over the local shards."""

    def before(self, engine: Engine) -> None:
        """Measure gradients and weights, after the last backward pass of an update."""
        scale = engine.loss_scale
        self._weights.clear()
        self._sums = {group_of(name): [0.0, 0.0, 0.0] for name in engine.parameter_names()}
        for name, shard in engine.master_shards().items():
            self._weights[name] = shard.weights.clone()
            sums = self._sums[group_of(name)]
            sums[0] += (_norm(shard.gradient) / scale) ** 2
            sums[1] += _norm(self._weights[name]) ** 2

    def after(self, engine: Engine) -> dict[str, float]:
        """Return the norms of each group, after the update.

        Returns:
            `gradient_norm/GROUP` before clipping, `weight_norm/GROUP` before the update, and
            `update_ratio/GROUP`, the norm of the update over that of the weights.
        """
        for name, shard in engine.master_shards().items():
            change = shard.weights - self._weights.pop(name)
            self._sums[group_of(name)][2] += _norm(change) ** 2
        flat = self._ranks.sum([square for sums in self._sums.values() for square in sums])
        figures = {}
        for i, group in enumerate(self._sums):
            gradient, weights, update = (math.sqrt(square) for square in flat[3 * i : 3 * i + 3])
            figures[f"gradient_norm/{group}"] = gradient
            figures[f"weight_norm/{group}"] = weights
            figures[f"update_ratio/{group}"] = update / weights if weights else 0.0
        return figures
