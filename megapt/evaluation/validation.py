"""Loss and accuracy on validation windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from megapt.config import DataConfig
from megapt.data import AnyCorpus, Batch, BatchMaker, Rows, open_stream, validation_batches
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.evaluation.losses import Scores
from megapt.objectives import Objective


def validation_maker(
    corpus: AnyCorpus, data: DataConfig, objective: Objective, rows: Rows | None = None
) -> BatchMaker:
    """Return the maker of batches of the validation split.

    Documents are shuffled as in training, so that windows mix them in the same way. Order and
    random draws always use seed 0, so that runs of different seeds are scored on the same
    targets. Each corpus of a mixture has a weight proportional to its size.
    """
    stream = open_stream(corpus, "valid", data, seed=0)
    return BatchMaker(stream, objective, corpus.vocabulary.pad, seed=0, rows=rows)


def evaluate(
    model: Any,
    maker: BatchMaker,
    *,
    windows: int,
    micro_batch_size: int,
    ranks: Ranks,
    begun: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return the scores of `model` on the first `windows` validation windows.

    Args:
        model: the module, or DeepSpeed's engine around it; all ranks must call together.
        maker: makes the validation batches.
        windows: number of windows; all of them if there are fewer.
        micro_batch_size: number of windows in a batch.
        ranks: the ranks that share the windows.
        begun: called before each batch.

    Returns:
        See `Scores.reduce`.

    Raises:
        MegaptError: on every rank, if one of them cannot read its windows.
        ConfigError: on every rank, if no window has a target.
    """
    was_training = model.training
    model.eval()
    scores = Scores(maker.objective.heads)
    batches = validation_batches(
        maker,
        windows,
        micro_batch_size=micro_batch_size,
        rank=ranks.data_rank,
        world=ranks.data_world,
    )
    with torch.no_grad():
        for batch in _in_step(batches, ranks):
            begun()
            scores.add(model(batch.to(ranks.device)).parts, batch)
    model.train(was_training)
    reduced = scores.reduce(ranks)
    if not reduced:
        raise ConfigError(
            f"the {maker.stream.name} windows that were read contain nothing to predict; check "
            f"whether data.reading.on_damage skipped their text, or data.window is too small"
        )
    return reduced


def _in_step(batches: Iterator[Batch], ranks: Ranks) -> Iterator[Batch]:
    """Yield the batches of this rank; if one rank cannot read a batch, every rank raises."""
    while True:
        with ranks.shared_errors():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
