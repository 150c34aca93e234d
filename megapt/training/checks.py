"""Checks before anything is written; `find_parts` and `prepare` call them in this order."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from megapt.config import Origins, RunConfig
from megapt.data import (
    BatchMaker,
    BatchSchedule,
    Rows,
    Stream,
)
from megapt.data.stream import in_lane_order
from megapt.distributed.deepspeed_config import DTYPES
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.model.attention import Backend, Use
from megapt.model.generator import generator_config
from megapt.objectives import Objective, ObjectiveError
from megapt.training.example_checks import check_example

_CHECKED_WINDOWS = 64
"""At most this many windows of each split are checked for wrong examples and missing targets."""


def _available(stream: Stream) -> int:
    """Return the number of windows of one epoch, or of the whole stream if that is less."""
    return stream.count if stream.total is None else min(stream.count, stream.total)


def check_platform() -> None:
    """Refuse systems other than Linux, on which megapt cannot detect a rank that hangs.

    Raises:
        ConfigError: if the system is not Linux.
    """
    if sys.platform != "linux":
        raise ConfigError(f"megapt trains on Linux, not on '{sys.platform}'")


def check_targets(
    maker: BatchMaker,
    objective: Objective,
    ranks: Ranks,
    origins: Origins,
    path: str,
    windows: int = _CHECKED_WINDOWS,
) -> None:
    """Refuse an objective that makes wrong examples or no targets from the first windows.

    Each rank checks the windows that it reads first in training. In a mixture, each member is
    checked on all of these windows.

    Args:
        maker: reads the windows and makes the examples.
        objective: objective that is checked.
        ranks: ranks of the job, which share the work.
        origins: places of the settings, for error messages.
        path: dotted path of the objective's section in the configuration.
        windows: number of windows to check, at most `_CHECKED_WINDOWS`.

    Raises:
        ConfigError: on every rank, if an example is wrong (the message names its window) or a head
            has no target (the message names the head, and the size and number of the windows).
        MegaptError: on every rank, if one of them cannot read its windows.
    """
    stream = maker.stream
    windows = min(windows, _CHECKED_WINDOWS, _available(stream))
    own = np.array_split(in_lane_order(stream, np.arange(windows)), ranks.world)[ranks.rank]
    leaves = list(objective.leaves(path))
    makers = {place: maker.with_objective(leaf) for place, leaf in leaves}
    found = Counter[tuple[str, str]]()
    with ranks.shared_errors():
        for window in maker.windows(own.tolist()):
            for place, leaf in leaves:
                for number, example in enumerate(makers[place].examples(window)):
                    try:
                        check_example(example, leaf)
                    except ObjectiveError as error:
                        raise origins.error(
                            place,
                            f"'{leaf.name}' makes a wrong example, number {number} of window "
                            f"{window.index} of the {stream.name} split: {error}",
                        ) from None
                    for head, target in example.targets.items():
                        found[place, head] += len(target.labels)
    heads = [(place, leaf.name, head.name) for place, leaf in leaves for head in leaf.heads]
    totals = ranks.sum([found[place, head] for place, _, head in heads])
    for (place, name, head), total in zip(heads, totals, strict=True):
        if not total:
            raise origins.error(
                place,
                f"'{name}' finds no target for its head '{head}' in the {windows} "
                f"{stream.name} windows of {stream.window_size} tokens that were checked; try a "
                f"larger data.window, documents of more sentences (for pairs), or a higher rate "
                f"of predicted tokens",
            )


def check_size(stream: Stream, config: RunConfig, batches: BatchSchedule, origins: Origins) -> None:
    """Refuse a corpus that is smaller than one step, or that ends before the budget is spent.

    Raises:
        ConfigError: if the corpus is too small; the message gives the numbers.
    """
    training, window, largest = config.training, config.data.window, max(batches.sizes)
    if _available(stream) < largest:
        raise origins.error(
            "training.global_batch_size"
            if largest == training.global_batch_size
            else "schedule.batch_size_rampup",
            f"{largest} windows are more than the corpus has: "
            f"{_available(stream)} of {window} tokens; choose a smaller global_batch_size, a "
            f"smaller data.window or a larger corpus",
        )
    if stream.total is None or training.budget.axis != "raw_tokens":
        return
    steps = batches.step_of(stream.total)
    windows = batches.first_window(steps)
    if windows * window < training.budget.amount:
        raise origins.error(
            "training.budget.amount",
            f"{training.budget.amount:,.0f} tokens are more than the mixture has within its "
            f"max_epochs: {steps:,} steps, {windows:,} windows of {window}; raise max_epochs or "
            f"lower the amount",
        )


def check_attention(
    backend: type[Backend],
    config: RunConfig,
    objective: Objective,
    ranks: Ranks,
    origins: Origins,
) -> None:
    """Refuse an attention backend that cannot train this run on these ranks.

    Raises:
        ConfigError: if the backend does not fit; the message names a setting or backend that does.
    """
    training = config.training
    problem = ""
    if backend.rows and not training.row_length:
        problem = "needs batches in rows; set training.row_length"
    use = Use(
        config.model,
        objective.attention,
        ranks.device,
        DTYPES[training.precision],
        ranks.sequence_world,
    )
    problem = problem or backend.problem(use)
    if problem:
        raise origins.error("training.attention", f"'{backend.name}' {problem}")


def check_segments(config: RunConfig, objective: Objective, origins: Origins) -> None:
    """Refuse an objective that distinguishes more segments than the model has embeddings for.

    Raises:
        ConfigError: if there are too few embeddings; the message gives the number needed.
    """
    rows, needed = config.model.num_segments, objective.segments
    if needed > rows:
        raise origins.error(
            "model.num_segments",
            f"{rows} is too few: '{objective.name}' distinguishes {needed} segments; "
            f"set it to {needed}",
        )


def check_generators(
    config: RunConfig, objective: Objective, ranks: Ranks, origins: Origins
) -> None:
    """Refuse generators that these ranks cannot compute.

    Raises:
        ConfigError: if CUDA would not be deterministic, or if the sequence-parallel ranks do not
            divide the generator's heads.
    """
    generates = any(head.kind == "generator" for head in objective.heads)
    if generates and config.training.deterministic and ranks.device.type == "cuda":
        raise origins.error(
            "training.deterministic",
            f"'{objective.name}' samples by cumulative sums, and CUDA's are not deterministic",
        )
    for head in objective.heads:
        heads = generator_config(config.model, head.scale).num_heads
        if head.kind == "generator" and heads % ranks.sequence_world:
            raise origins.error(
                "parallel.sequence_parallel_size",
                f"{ranks.sequence_world} ranks do not divide the {heads} heads of the generator of "
                f"'{objective.name}'; make the generator larger, or give the model more heads",
            )


def check_metric(config: RunConfig, objective: Objective, origins: Origins) -> None:
    """Refuse to choose checkpoints by a metric that validation does not compute.

    Raises:
        ConfigError: if the metric is unknown; the message lists the known ones.
    """
    names = ["loss"]
    names += [f"{kind}/{head.name}" for head in objective.heads for kind in ("loss", "accuracy")]
    if config.checkpoint.keep_best and config.checkpoint.metric not in names:
        raise origins.error(
            "checkpoint.metric",
            f"'{config.checkpoint.metric}' is not a validation metric; valid: {', '.join(names)}",
        )


def choose_rows(config: RunConfig, objective: Objective, origins: Origins) -> Rows | None:
    """Return the rows into which a micro-batch is packed; None if examples are concatenated.

    Raises:
        ConfigError: if an example may be longer than a row.
    """
    training = config.training
    if not training.row_length:
        return None
    longest = objective.longest_example(config.data.window)
    if training.row_length < longest:
        raise origins.error(
            "training.row_length",
            f"{training.row_length} positions are too few: an example of '{objective.name}' has "
            f"up to {longest} in windows of {config.data.window} tokens",
        )
    # Enough rows for the longest examples of all windows, if they could be split anywhere, plus one
    # row. Each part of a window adds special tokens, so the shortest parts need most positions.
    window = config.data.window
    lengths = [window, *(stage.length for stage in config.schedule.window_rampup)]
    taken = max(window // length * objective.longest_example(length) for length in lengths)
    count = -(-training.micro_batch_size * taken // training.row_length) + 1
    return Rows(training.row_length, count, training.open_rows)
