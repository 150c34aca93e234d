"""Norms of gradients, weights and updates by group of parameters, at every ZeRO stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from megapt.training.distributed import Ranks
from megapt.training.engine import Engine


def group_of(name: str) -> str:
    """Return the group of a parameter: `embeddings`, `blocks.3`, `final_norm`, `heads.class`.

    Those of a generator have its name before them: `generators.NAME.blocks.0`.
    """
    parts = name.replace("_orig_mod.", "").split(".")  # torch.compile puts that before a name
    if parts[0] == "generators":
        return ".".join([*parts[:2], group_of(".".join(parts[2:]))])
    if parts[0] == "trunk":
        parts = parts[1:]
    return ".".join(parts[:2]) if parts[0] in ("blocks", "heads") else parts[0]


def _own(parameter: Any, shard: Tensor) -> Tensor:
    """Return of a ZeRO 3 shard what belongs to the parameter: the last ones end in padding."""
    start = torch.distributed.get_rank(group=parameter.ds_process_group) * shard.numel()
    return shard.flatten()[: max(0, parameter.ds_numel - start)]


def _is_here(parameter: Any, main: bool) -> bool:
    """Return whether this rank updates some of a parameter.

    The shards of all ranks are disjoint and make the whole. What is not sharded is left to the
    first rank.
    """
    if hasattr(parameter, "ds_id"):  # ZeRO 3
        return True
    if hasattr(parameter, "_hp_mapping"):  # ZeRO 1 and 2
        return parameter._hp_mapping is not None
    return main


def _weights(parameter: Any) -> Tensor:
    """Return what this rank updates of a parameter, in float32."""
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_local_fp32_param

        return _own(parameter, safe_get_local_fp32_param(parameter))
    weights: Tensor = parameter
    if hasattr(parameter, "_hp_mapping"):
        weights = parameter._hp_mapping.get_hp_fragment()
    return weights.detach()


def _gradient(parameter: Any) -> Tensor:
    """Return the gradient of what `_weights` returns, times the loss scale and not yet clipped.

    It is there between the last backward pass and the update.
    """
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_local_grad

        return _own(parameter, safe_get_local_grad(parameter))
    if hasattr(parameter, "_hp_mapping"):
        shard = parameter._hp_mapping
        gradient: Tensor = shard.get_lp_grad_fragment(parameter._index_in_param_group).flatten()
        place = shard.lp_fragment_address
        if gradient.numel() == place.numel:
            return gradient
        return gradient[place.start : place.start + place.numel]
    return torch.zeros(()) if parameter.grad is None else parameter.grad


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float32))


class GroupNorms:
    """Measures one update of an engine. All ranks call `before` and `after` together.

    Between the two, each rank holds a second copy of the weights that it updates.

    Args:
        ranks: of the job.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._weights: dict[str, Tensor] = {}
        self._sums: dict[str, list[float]] = {}
        """Group -> squares of its gradient, weights and update, summed over what is here."""

    def before(self, engine: Engine) -> None:
        """Take the gradients and the weights, after the last backward pass of an update."""
        scale = float(getattr(engine.deepspeed.optimizer, "loss_scale", 1.0))
        self._weights.clear()
        self._sums = {group_of(name): [0.0, 0.0, 0.0] for name, _ in _named(engine)}
        for name, parameter in _named(engine):
            if _is_here(parameter, self._ranks.main):
                self._weights[name] = _weights(parameter).clone()
                sums = self._sums[group_of(name)]
                sums[0] += (_norm(_gradient(parameter)) / scale) ** 2
                sums[1] += _norm(self._weights[name]) ** 2

    def after(self, engine: Engine) -> dict[str, float]:
        """Return what the update did to each group.

        Returns:
            `gradient_norm/GROUP` before clipping, `weight_norm/GROUP` before the update, and
            `update_ratio/GROUP`, the norm of the update over that of the weights.
        """
        for name, parameter in _named(engine):
            if name in self._weights:
                change = _weights(parameter) - self._weights.pop(name)
                self._sums[group_of(name)][2] += _norm(change) ** 2
        flat = self._ranks.sum([square for sums in self._sums.values() for square in sums])
        figures = {}
        for i, group in enumerate(self._sums):
            gradient, weights, update = (math.sqrt(square) for square in flat[3 * i : 3 * i + 3])
            figures[f"gradient_norm/{group}"] = gradient
            figures[f"weight_norm/{group}"] = weights
            figures[f"update_ratio/{group}"] = update / weights if weights else 0.0
        return figures


def _named(engine: Engine) -> Iterator[tuple[str, Any]]:
    named: Iterator[tuple[str, Any]] = engine.deepspeed.module.named_parameters()
    return named
