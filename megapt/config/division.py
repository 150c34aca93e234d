"""Into what the ranks of a job divide their work; this needs neither torch nor the ranks."""

from __future__ import annotations

from megapt.config.errors import Origins
from megapt.config.run import SharedConfig


def check_groups(config: SharedConfig, ranks: int, origins: Origins) -> None:
    """Refuse ranks or heads that do not divide into groups which share positions.

    Args:
        config: of a run or a comparison.
        ranks: of the job.
        origins: of the configuration, for errors.

    Raises:
        ConfigError: with the numbers.
    """
    size = config.parallel.sequence
    for name, count in (("ranks", ranks), ("heads", config.model.heads)):
        if count % size:
            raise origins.error(
                "parallel.sequence", f"{size} ranks do not divide the {count} {name}"
            )


def check_batches(config: SharedConfig, ranks: int, origins: Origins) -> None:
    """Refuse a global batch that does not divide into ranks and micro-batches.

    Arguments and errors are those of `check_groups`.
    """
    training, shares = config.training, ranks // config.parallel.sequence
    stages = [("schedule.batches", stage.global_batch) for stage in config.schedule.batches]
    for path, windows in [("training.global_batch", training.global_batch), *stages]:
        if windows % (training.micro_batch * shares):
            raise origins.error(
                path,
                f"{windows} windows do not divide by micro_batch {training.micro_batch} x "
                f"{shares} ranks" + (" that read different text" if shares < ranks else ""),
            )
