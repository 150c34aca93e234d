"""What changes over a run: the learning rate, the global batch, the length of the texts."""

from __future__ import annotations

import math

from megapt.config import Origins, RunConfig, ScheduleConfig
from megapt.data import BatchSchedule, LengthSchedule


def is_due(step: int, every: int) -> bool:
    """Whether what is done every so many steps is done after this one; 0 is never."""
    return every > 0 and step % every == 0


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


def batch_schedule(config: RunConfig, origins: Origins | None = None) -> BatchSchedule:
    """Return the global batch of every step.

    Args:
        config: of the run.
        origins: of the configuration, for errors.

    Raises:
        ConfigError: if `schedule.batches` does not fit the budget.
    """
    origins = origins or Origins()
    path, training = "schedule.batches", config.training
    if not config.schedule.batches:
        return BatchSchedule((), training.global_batch)
    if config.batch_stages is None:
        raise _unplanned(path, config, origins)
    stages = config.batch_stages[:-1]
    for stage, (steps, size) in zip(config.schedule.batches, stages, strict=True):
        if not steps:
            raise origins.error(
                path,
                f"the stage until {stage.until} of the budget holds no step of {size} windows; "
                f"end it later or leave it out",
            )
    return BatchSchedule(stages, training.global_batch)


def length_schedule(config: RunConfig, origins: Origins | None = None) -> LengthSchedule:
    """Return the length of the parts of every step's windows; arguments as for `batch_schedule`.

    Raises:
        ConfigError: if `schedule.windows` fits neither the budget nor the windows.
    """
    origins = origins or Origins()
    path, window = "schedule.windows", config.data.window
    batches = batch_schedule(config, origins)
    stages: list[tuple[int, int]] = []
    begun = 0
    for stage in config.schedule.windows:
        windows = config.planned_windows(stage.until)
        if windows is None:
            raise _unplanned(path, config, origins)
        if stage.length >= window or window % stage.length:
            raise origins.error(
                path,
                f"windows of {window} tokens do not divide into parts of {stage.length}; choose a "
                f"length that data.window is a multiple of",
            )
        end = batches.steps_until(windows)
        if end <= begun:
            raise origins.error(
                path,
                f"the stage until {stage.until} of the budget holds no step; end it later or "
                f"leave it out",
            )
        stages.append((end - begun, stage.length))
        begun = end
    return LengthSchedule(stages)


def _unplanned(path: str, config: RunConfig, origins: Origins) -> Exception:
    return origins.error(
        path,
        f"needs a budget in raw_tokens, not in {config.training.budget.axis}: only then the steps "
        f"of a run are known beforehand",
    )
