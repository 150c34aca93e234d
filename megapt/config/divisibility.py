"""Checks that the work divides by the ranks of a job. They need neither torch nor the ranks."""

from __future__ import annotations

from megapt.config.errors import Origins
from megapt.config.run import SharedConfig


def check_groups(config: SharedConfig, ranks: int, origins: Origins) -> None:
    """Refuse a number of ranks or heads that `parallel.sequence_parallel_size` does not divide.

    Args:
        config: configuration of a run or a comparison.
        ranks: number of ranks of the job.
        origins: places of the settings, for error messages.

    Raises:
        ConfigError: if a number does not divide; the message gives it.
    """
    size = config.parallel.sequence_parallel_size
    for name, count in (("ranks", ranks), ("heads", config.model.num_heads)):
        if count % size:
            raise origins.error(
                "parallel.sequence_parallel_size", f"{size} ranks do not divide the {count} {name}"
            )


def check_batches(config: SharedConfig, ranks: int, origins: Origins) -> None:
    """Refuse a global batch that does not divide into ranks and micro-batches.

    Args:
        config: configuration of a run or a comparison.
        ranks: number of ranks of the job.
        origins: places of the settings, for error messages.

    Raises:
        ConfigError: if a global batch does not divide; the message gives the numbers.
    """
    training, shares = config.training, ranks // config.parallel.sequence_parallel_size
    stages = [
        ("schedule.batch_size_rampup", stage.global_batch_size)
        for stage in config.schedule.batch_size_rampup
    ]
    for path, windows in [("training.global_batch_size", training.global_batch_size), *stages]:
        if windows % (training.micro_batch_size * shares):
            raise origins.error(
                path,
                f"{windows} windows are not divisible by micro_batch_size "
                f"{training.micro_batch_size} x {shares} ranks"
                + (" that read different text" if shares < ranks else ""),
            )
