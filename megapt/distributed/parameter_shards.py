"""The part of each parameter that a rank updates, at any ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterShard:
    """The elements of one parameter that this rank updates."""

    _parameter: Any

    @property
    def weights(self) -> Tensor:
        """Values of the elements in the optimizer, float32; not a copy."""
        parameter = self._parameter
        if hasattr(parameter, "ds_id"):  # ZeRO 3
            from deepspeed.utils import safe_get_local_fp32_param

            return _without_padding(parameter, safe_get_local_fp32_param(parameter))
        weights: Tensor = parameter
        if hasattr(parameter, "_hp_mapping"):  # ZeRO 1 and 2
            weights = parameter._hp_mapping.get_hp_fragment()
        return weights.detach()

    @property
    def gradient(self) -> Tensor:
        """Gradient of the elements, multiplied by the loss scale and not clipped.

        It is available between the last backward pass and the update.
        """
        parameter = self._parameter
        if hasattr(parameter, "ds_id"):
            from deepspeed.utils import safe_get_local_grad

            return _without_padding(parameter, safe_get_local_grad(parameter))
        if hasattr(parameter, "_hp_mapping"):
            shard = parameter._hp_mapping
            gradient: Tensor = shard.get_lp_grad_fragment(parameter._index_in_param_group).flatten()
            place = shard.lp_fragment_address
            if gradient.numel() == place.numel:
                return gradient
            return gradient[place.start : place.start + place.numel]
        return torch.zeros(()) if parameter.grad is None else parameter.grad


def _without_padding(parameter: Any, shard: Tensor) -> Tensor:
    """Return a ZeRO 3 shard without padding, which the last shards may contain."""
    start = torch.distributed.get_rank(group=parameter.ds_process_group) * shard.numel()
    return shard.flatten()[: max(0, parameter.ds_numel - start)]


def _is_here(parameter: Any, main: bool) -> bool:
    """Return whether this rank updates a part of a parameter; the main rank has unsharded ones."""
    if hasattr(parameter, "ds_id"):
        return True
    if hasattr(parameter, "_hp_mapping"):
        return parameter._hp_mapping is not None
    return main


def parameter_shards(module: nn.Module, main: bool) -> Iterator[tuple[str, ParameterShard]]:
    """Yield (name, shard) of the parameters of which this rank updates a part.

    The shards of all ranks are disjoint and cover all elements.

    Args:
        module: the module inside DeepSpeed's engine.
        main: whether this is the main rank, to which parameters that are not sharded belong.
    """
    for name, parameter in module.named_parameters():
        if _is_here(parameter, main):
            yield name, ParameterShard(parameter)
