"""The float32 master weights that a rank's optimizer updates, at any ZeRO stage.

Without ZeRO they are the model's parameters, at stages 1 and 2 a flat partition of each parameter
group, and at stage 3 a flat partition of each parameter. DeepSpeed has public functions for single
parameters, but none for the partitions, so this module reads attributes of DeepSpeed's optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def master_weights(engine: Any) -> list[Tensor]:
    """Return the float32 tensors that this rank's optimizer updates, not copies.

    Args:
        engine: DeepSpeed's engine.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):  # stage 3
        return list(optimizer.fp32_partitioned_groups_flat)
    if hasattr(optimizer, "single_partition_of_fp32_groups"):  # stages 1 and 2
        return list(optimizer.single_partition_of_fp32_groups)
    return [parameter.data for parameter in engine.module.parameters()]


@torch.no_grad()
def update_module(engine: Any) -> None:
    """Copy the master weights to the module's weights. All ranks must call it."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        optimizer.checkpoint_event_prologue()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer.checkpoint_event_epilogue()
    elif hasattr(optimizer, "single_partition_of_fp32_groups"):
        optimizer.update_lp_params()


def gather(engine: Any, keep: bool) -> dict[str, Tensor]:
    """Return all full parameters, float32, on the CPU. All ranks must call it.

    Args:
        engine: DeepSpeed's engine.
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
    """Set the master weights from full parameters, the inverse of `gather`.

    `update_module` then updates the module's weights.

    Args:
        engine: DeepSpeed's engine.
        weights: parameter name -> full parameter.

    Raises:
        KeyError: if a parameter is missing.
    """
    from deepspeed.utils import safe_get_local_fp32_param, safe_set_full_fp32_param

    for name, parameter in engine.module.named_parameters():
        whole = weights[name]
        if hasattr(parameter, "ds_id"):
            # DeepSpeed's function for full parameters fails if the number of elements is not
            # divisible by the number of ranks.
            mine = safe_get_local_fp32_param(parameter)
            start = mine.numel() * torch.distributed.get_rank(parameter.ds_process_group)
            part = whole.flatten()[start : start + mine.numel()]
            mine[: part.numel()].copy_(part)
        elif hasattr(parameter, "_hp_mapping"):
            safe_set_full_fp32_param(parameter, whole)
        else:
            parameter.copy_(whole)
