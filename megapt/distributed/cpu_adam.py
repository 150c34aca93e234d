"""AdamW for optimizer states that are offloaded to host memory."""

from __future__ import annotations

from typing import Any

import torch


def cpu_adam(groups: list[dict[str, Any]], **adamw: Any) -> torch.optim.Optimizer:
    """Return DeepSpeed's CPU AdamW; DeepSpeed builds its op at the first use.

    Args:
        groups: parameter groups.
        adamw: learning rate, betas and eps, as for torch's AdamW.
    """
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    optimizer: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **adamw)
    return optimizer
