"""The schedule of the learning rate."""

from __future__ import annotations

import math

from megapt.config import ScheduleConfig


def rate_factor(schedule: ScheduleConfig, spent: float) -> float:
    """Return the factor of the peak learning rate when the share `spent` of the budget is spent.

    The factor rises linearly from 0 over `warmup_ratio`. Then it depends on `name`:

        constant      it is 1
        linear        it falls linearly to `min_lr_ratio`
        cosine        it falls along half a cosine to `min_lr_ratio` (Loshchilov & Hutter 2017,
                      equation 5)
        inverse_sqrt  it is sqrt(warmup_ratio / spent) (Vaswani et al. 2017, equation 3)
        wsd           it is 1, and falls to `min_lr_ratio` over the last `decay_ratio` (Hu et al.
                      2024) in the shape `decay_shape` (Hägele et al. 2024, section 3): as 1 - x or
                      as 1 - sqrt(x), where x is the completed share of the decay

    The factor is at least 1e-3 during warm-up, because a factor of 0 would waste the first step.
    """
    warmup, lowest = schedule.warmup_ratio, schedule.min_lr_ratio
    if spent < warmup:
        return max(spent / warmup, 1e-3)
    after = (spent - warmup) / max(1.0 - warmup, 1e-12)
    if schedule.name == "linear":
        return 1.0 - (1.0 - lowest) * after
    if schedule.name == "cosine":
        return lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * after))
    if schedule.name == "inverse_sqrt":
        return math.sqrt(max(warmup, 1e-3) / max(spent, 1e-3))
    if schedule.name == "wsd" and schedule.decay_ratio > 0:
        # If the decay and the warm-up are longer than the run, the decay begins after the warm-up.
        left = min(1.0, (1.0 - spent) / max(min(schedule.decay_ratio, 1.0 - warmup), 1e-12))
        if schedule.decay_shape == "sqrt":
            left = 1.0 - math.sqrt(1.0 - left)
        return lowest + (1.0 - lowest) * left
    return 1.0
