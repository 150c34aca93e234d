"""Loss and accuracy on held-out windows."""

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
    """Return the batches of the held-out split.

    Documents are shuffled as in training, so that windows mix them alike, but order and draws are
    keyed by seed 0: runs of different seeds are measured on the same questions. Of a mixture every
    corpus counts by its size.
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
    """Return the scores of `model` on the first `windows` held-out windows.

    Args:
        model: the module, or DeepSpeed's engine around it; all ranks must call together.
        maker: held-out batches.
        windows: how many; all if there are fewer.
        micro_batch_size: rows at once.
        ranks: that share the windows.
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
            f"the {maker.stream.name} windows that were read hold nothing to predict; is their "
            f"text left out by data.reading.on_damage, or data.window too small?"
        )
    return reduced


def _in_step(batches: Iterator[Batch], ranks: Ranks) -> Iterator[Batch]:
    """Yield the batches of this rank; one that a rank cannot read ends all of them."""
    while True:
        with ranks.together():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
