"""Schedules of a run: the global batch and the length of the windows' parts."""

from __future__ import annotations

from megapt.config import Origins, RunConfig
from megapt.data.batch_schedule import BatchSchedule
from megapt.data.sources import AnyCorpus, open_stream
from megapt.data.stream import Stream
from megapt.data.window_lengths import LengthSchedule


def batch_schedule(config: RunConfig, origins: Origins | None = None) -> BatchSchedule:
    """Return the global batch of every step.

    Args:
        config: the configuration of the run.
        origins: where its values come from, for errors.

    Raises:
        ConfigError: if `schedule.batch_size_rampup` does not fit the budget.
    """
    origins = origins or Origins()
    path, training = "schedule.batch_size_rampup", config.training
    if not config.schedule.batch_size_rampup:
        return BatchSchedule((), training.global_batch_size)
    if config.batch_stages is None:
        raise _unplanned(path, config, origins)
    stages = config.batch_stages[:-1]
    for stage, (steps, size) in zip(config.schedule.batch_size_rampup, stages, strict=True):
        if not steps:
            raise origins.error(
                path,
                f"the stage until {stage.until} of the budget holds no step of {size} windows; "
                f"end it later or remove it",
            )
    return BatchSchedule(stages, training.global_batch_size)


def length_schedule(config: RunConfig, origins: Origins | None = None) -> LengthSchedule:
    """Return the length of the parts of each step's windows; arguments as for `batch_schedule`.

    Raises:
        ConfigError: if `schedule.window_rampup` fits neither the budget nor the windows.
    """
    origins = origins or Origins()
    path, window = "schedule.window_rampup", config.data.window
    batches = batch_schedule(config, origins)
    stages: list[tuple[int, int]] = []
    start = 0
    for stage in config.schedule.window_rampup:
        windows = config.planned_windows(stage.until)
        if windows is None:
            raise _unplanned(path, config, origins)
        if stage.length >= window or window % stage.length:
            raise origins.error(
                path,
                f"windows of {window} tokens do not divide into parts of {stage.length}; choose a "
                f"smaller length that divides data.window",
            )
        end = batches.steps_until(windows)
        if end <= start:
            raise origins.error(
                path,
                f"the stage until {stage.until} of the budget holds no step; end it later or "
                f"remove it",
            )
        stages.append((end - start, stage.length))
        start = end
    return LengthSchedule(stages)


def training_stream(corpus: AnyCorpus, config: RunConfig) -> Stream:
    """Return the windows that the run trains on."""
    batches = batch_schedule(config)
    return open_stream(corpus, "train", config.data, seed=config.seed, global_batch_size=batches)


def _unplanned(path: str, config: RunConfig, origins: Origins) -> Exception:
    return origins.error(
        path,
        f"needs a budget in raw_tokens, not in {config.training.budget.axis}: only then are the "
        f"steps of a run known in advance",
    )
