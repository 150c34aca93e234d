"""The float32 weights that a rank's optimizer updates, wherever the ZeRO stage keeps them.

They are all of the model's without ZeRO, one flat partition a parameter group at stages 1 and 2,
and one of each parameter at stage 3. DeepSpeed has public functions for single parameters; for the
partitions it has none, so what is read here is of its own optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def masters(engine: Any) -> list[Tensor]:
    """Return what this rank's optimizer updates, float32; changes go on with the training.

    Args:
        engine: DeepSpeed's.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):  # stage 3
        return list(optimizer.fp32_partitioned_groups_flat)
    if hasattr(optimizer, "single_partition_of_fp32_groups"):  # stages 1 and 2
        return list(optimizer.single_partition_of_fp32_groups)
    return [parameter.data for parameter in engine.module.parameters()]


@torch.no_grad()
def publish(engine: Any) -> None:
    """Make the module's weights those of the masters again. All ranks must call it."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        optimizer.checkpoint_event_prologue()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer.checkpoint_event_epilogue()
    elif hasattr(optimizer, "single_partition_of_fp32_groups"):
        optimizer.update_lp_params()


def gather(engine: Any, keep: bool) -> dict[str, Tensor]:
    """Return all parameters, whole, in float32, on the CPU. All ranks must call it.

    Args:
        engine: DeepSpeed's.
        keep: whether this rank needs them; the others get an empty dictionary.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in engine.module.named_parameters():
        whole = safe_get_full_fp32_param(parameter)
        if keep:
            tensor = parameter if whole is None else whole
            weights[name] = tensor.detach().to("cpu", torch.float32, copy=True)
    return weights


@torch.no_grad()
def scatter(engine: Any, weights: Mapping[str, Tensor]) -> None:
    """Set the masters to whole parameters, the opposite of `gather`.

    The module's weights follow with `publish`.

    Raises:
        KeyError: if a parameter is missing.
    """
    from deepspeed.utils import safe_get_local_fp32_param, safe_set_full_fp32_param

    for name, parameter in engine.module.named_parameters():
        whole = weights[name]
        if hasattr(parameter, "ds_id"):
            # DeepSpeed's own function for the whole fails where ranks do not divide the parameter.
            mine = safe_get_local_fp32_param(parameter)
            start = mine.numel() * torch.distributed.get_rank(parameter.ds_process_group)
            part = whole.flatten()[start : start + mine.numel()]
            mine[: part.numel()].copy_(part)
        elif hasattr(parameter, "_hp_mapping"):
            safe_set_full_fp32_param(parameter, whole)
        else:
            parameter.copy_(whole)
