"""What a trunk makes of whole texts: one vector each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from megapt.data import collate
from megapt.data.example import Ints
from megapt.distributed.ranks import Ranks
from megapt.evaluation.loading import LoadedRun

_ROWS = 32


def mean_states(
    run: LoadedRun, lengths: Sequence[int] | Ints, read: Callable[[int], Ints], ranks: Ranks
) -> NDArray[np.float32]:
    """Return the mean last state of the tokens of each text, float32 [texts, hidden].

    Every text stands before the trunk uncorrupted, as the run's objective is used to seeing it. The
    ranks share the texts, and all of them are given the whole result.

    Args:
        run: the model.
        lengths: of the texts; those of like length are computed together.
        read: returns the tokens of a text by its number, any integer type [n], at most
            `run.longest_text`.
        ranks: of the job.

    Raises:
        MegaptError: on every rank, if one of them cannot read its texts.
    """
    mine = np.arange(len(lengths))[ranks.rank :: ranks.world]
    with ranks.together():
        states = _states_alone(run, mine, np.asarray(lengths)[mine], read)
    whole = np.zeros((len(lengths), run.model.config.hidden_size), dtype=np.float32)
    for rank, part in enumerate(ranks.gather(states)):
        whole[rank :: ranks.world] = part
    return whole


def _states_alone(
    run: LoadedRun, numbers: Ints, lengths: Ints, read: Callable[[int], Ints]
) -> NDArray[np.float32]:
    """Return the mean states of these texts, which this rank computes."""
    means = np.zeros((len(numbers), run.model.config.hidden_size), dtype=np.float32)
    pad = run.objective.vocabulary.pad
    # Texts of like length share a batch: they attend in one group.
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), _ROWS):
        chosen = order[first : first + _ROWS]
        texts = [read(number) for number in numbers[chosen].tolist()]
        batch = collate([run.objective.present(text) for text in texts], pad=pad).widen()
        with torch.no_grad():
            states = run.model.trunk(batch.to(run.device)).float().cpu()
        for row, text in enumerate(texts):
            # In every objective the text tokens are positions 1 to n of their example.
            start = int(batch.starts[row]) + 1
            means[chosen[row]] = states[start : start + len(text)].mean(dim=0).numpy()
    return means
