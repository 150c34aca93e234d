"""The schedule of the learning rate."""

from __future__ import annotations

import math

from megapt.config import ScheduleConfig


def rate_factor(schedule: ScheduleConfig, spent: float) -> float:
    """Return the factor of the peak learning rate when the share `spent` of the budget is spent.

    The rate rises linearly from 0 over `warmup`, then

        constant      1
        linear        falls linearly to `final`
        cosine        falls along half a cosine to `final` (Loshchilov & Hutter 2017, equation 5)
        inverse_sqrt  sqrt(warmup / spent) (Vaswani et al. 2017, equation 3)
        wsd           stays 1, and falls to `final` over the last `decay` (Hu et al. 2024), in the
                      shape `decay_shape` (Hägele et al. 2024, section 3): with the share x of
                      the decay over, as 1 - x or as 1 - sqrt(x)

    A factor of 0 at the very first step would waste it; the rise therefore begins one thousandth
    of the warm-up in.
    """
    if spent < schedule.warmup:
        return max(spent / schedule.warmup, 1e-3)
    after = (spent - schedule.warmup) / max(1.0 - schedule.warmup, 1e-12)
    if schedule.name == "linear":
        return 1.0 - (1.0 - schedule.final) * after
    if schedule.name == "cosine":
        return schedule.final + (1.0 - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * after))
    if schedule.name == "inverse_sqrt":
        return math.sqrt(max(schedule.warmup, 1e-3) / max(spent, 1e-3))
    if schedule.name == "wsd" and schedule.decay > 0:
        # A decay longer than what the warm-up leaves begins where the warm-up ends.
        left = min(1.0, (1.0 - spent) / max(min(schedule.decay, 1.0 - schedule.warmup), 1e-12))
        if schedule.decay_shape == "sqrt":
            left = 1.0 - math.sqrt(1.0 - left)
        return schedule.final + (1.0 - schedule.final) * left
    return 1.0
