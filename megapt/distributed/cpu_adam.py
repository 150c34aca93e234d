"""AdamW for states that are offloaded to the host."""

from __future__ import annotations

from typing import Any

import torch


def cpu_adam(groups: list[dict[str, Any]], **adamw: Any) -> torch.optim.Optimizer:
    """Return DeepSpeed's AdamW for the host's processors, whose op is built at the first start.

    Args:
        groups: of parameters.
        adamw: learning rate, betas and eps, as for torch's AdamW.
    """
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    optimizer: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **adamw)
    return optimizer
