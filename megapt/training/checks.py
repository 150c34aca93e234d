"""What is refused before anything is written; `find_parts` and `prepare` call these in order."""

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

_TRIED_WINDOWS = 64
"""Windows of each split that are looked at first, to see that every head has targets there."""


def _available(stream: Stream) -> int:
    """Return the windows of an epoch, or of all there is if that is less."""
    return stream.count if stream.total is None else min(stream.count, stream.total)


def check_platform() -> None:
    """Refuse systems other than Linux, on which nothing would notice a rank that hangs.

    Raises:
        ConfigError: saying what is needed.
    """
    if sys.platform != "linux":
        raise ConfigError(f"megapt trains on Linux, not on '{sys.platform}'")


def check_targets(
    maker: BatchMaker,
    objective: Objective,
    ranks: Ranks,
    origins: Origins,
    path: str,
    windows: int = _TRIED_WINDOWS,
) -> None:
    """Refuse an objective that makes wrong examples of the first `windows` windows, or no targets.

    Each rank looks at those that it reads first in any case. Of a mixture each member looks at all
    of them.

    Raises:
        ConfigError: on every rank, naming what is wrong in which window, or the head without
            targets, the window size and what was looked at.
        MegaptError: on every rank, if one of them cannot read its windows.
    """
    stream = maker.stream
    windows = min(windows, _TRIED_WINDOWS, _available(stream))
    mine = np.array_split(in_lane_order(stream, np.arange(windows)), ranks.world)[ranks.rank]
    leaves = list(objective.leaves(path))
    makers = {place: maker.asking(leaf) for place, leaf in leaves}
    found = Counter[tuple[str, str]]()
    with ranks.together():
        for window in maker.windows(mine.tolist()):
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
                f"{stream.name} windows of {stream.window_size} tokens that were tried; what "
                f"may help: a larger data.window, documents of more sentences (for pairs), or a "
                f"higher rate of what is predicted",
            )


def check_size(stream: Stream, config: RunConfig, batches: BatchSchedule, origins: Origins) -> None:
    """Refuse a corpus in which a step would read the same text twice, or that ends too early.

    Raises:
        ConfigError: with the numbers.
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
            f"{training.budget.amount:,.0f} tokens are more than the mixture gives until its "
            f"max_epochs are used up: {steps:,} steps, {windows:,} windows of {window}; "
            f"raise them or lower the amount",
        )


def check_attention(
    backend: type[Backend],
    config: RunConfig,
    objective: Objective,
    ranks: Ranks,
    origins: Origins,
) -> None:
    """Refuse a way of computing attention that cannot train this run on these ranks.

    Raises:
        ConfigError: saying what can.
    """
    training = config.training
    problem = ""
    if backend.rows and not training.row_length:
        problem = "wants batches in rows; set training.row_length"
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
    """Refuse an objective that tells more segments apart than the model has embeddings for.

    Raises:
        ConfigError: saying how many it needs.
    """
    rows, needed = config.model.num_segments, objective.segments
    if needed > rows:
        raise origins.error(
            "model.num_segments",
            f"{rows} is too few: '{objective.name}' tells {needed} segments apart; "
            f"set it to {needed}",
        )


def check_generators(
    config: RunConfig, objective: Objective, ranks: Ranks, origins: Origins
) -> None:
    """Refuse generators that these ranks cannot compute.

    Raises:
        ConfigError: saying why.
    """
    generates = any(head.kind == "generator" for head in objective.heads)
    if generates and config.training.deterministic and ranks.device.type == "cuda":
        raise origins.error(
            "training.deterministic",
            f"'{objective.name}' samples by cumulative sums, which CUDA computes in no fixed order",
        )
    for head in objective.heads:
        heads = generator_config(config.model, head.scale).num_heads
        if head.kind == "generator" and heads % ranks.sequence_world:
            raise origins.error(
                "parallel.sequence_parallel_size",
                f"{ranks.sequence_world} ranks do not divide the {heads} heads of the generator of "
                f"'{objective.name}'; make it larger, or give the model more heads",
            )


def check_metric(config: RunConfig, objective: Objective, origins: Origins) -> None:
    """Refuse to choose checkpoints by a metric that no validation has.

    Raises:
        ConfigError: saying which there are.
    """
    names = ["loss"]
    names += [f"{kind}/{head.name}" for head in objective.heads for kind in ("loss", "accuracy")]
    if config.checkpoint.keep_best and config.checkpoint.metric not in names:
        raise origins.error(
            "checkpoint.metric",
            f"'{config.checkpoint.metric}' is no held-out score; there are {', '.join(names)}",
        )


def choose_rows(config: RunConfig, objective: Objective, origins: Origins) -> Rows | None:
    """Return the rows that a micro-batch is packed into; None if it is laid end to end.

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
            f"{training.row_length} positions are too few: an example of '{objective.name}' takes "
            f"up to {longest} in windows of {config.data.window} tokens",
        )
    # What the longest examples of all windows would take, were they cut anywhere, and a row more.
    # Of windows in parts it is most where the parts are shortest: each has its special tokens.
    window = config.data.window
    lengths = [window, *(stage.length for stage in config.schedule.window_rampup)]
    taken = max(window // length * objective.longest_example(length) for length in lengths)
    count = -(-training.micro_batch_size * taken // training.row_length) + 1
    return Rows(training.row_length, count, training.open_rows)
