"""What a rank updates of each parameter, wherever the ZeRO stage keeps it."""

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
        """Their values, float32, as the optimizer keeps them; not a copy."""
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
        """Their gradient, times the loss scale and not yet clipped.

        It is there between the last backward pass and the update.
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
    """Return of a ZeRO 3 shard what belongs to the parameter: the last ones end in padding."""
    start = torch.distributed.get_rank(group=parameter.ds_process_group) * shard.numel()
    return shard.flatten()[: max(0, parameter.ds_numel - start)]


def _is_here(parameter: Any, main: bool) -> bool:
    """Return whether this rank updates some of a parameter; what is not sharded, the main one."""
    if hasattr(parameter, "ds_id"):
        return True
    if hasattr(parameter, "_hp_mapping"):
        return parameter._hp_mapping is not None
    return main


def parameter_shards(module: nn.Module, main: bool) -> Iterator[tuple[str, ParameterShard]]:
    """Yield (name, shard) of the parameters that this rank updates some of.

    The shards of all ranks are disjoint and make the whole.

    Args:
        module: inside DeepSpeed's engine.
        main: whether this is the rank that what is not sharded is left to.
    """
    for name, parameter in module.named_parameters():
        if _is_here(parameter, main):
            yield name, ParameterShard(parameter)
