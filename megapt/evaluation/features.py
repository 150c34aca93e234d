"""Features of texts: one vector of a trunk for each text."""

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

    The trunk reads every text uncorrupted, with the special tokens of the run's objective. The
    ranks share the texts, and every rank returns the whole result.

    Args:
        run: the run of the model.
        lengths: lengths of the texts, in tokens; texts of similar length share a batch.
        read: returns the tokens of a text by its number, any integer type [n], at most
            `run.longest_text`.
        ranks: the ranks of the job.

    Raises:
        MegaptError: on every rank, if one of them cannot read its texts.
    """
    mine = np.arange(len(lengths))[ranks.rank :: ranks.world]
    with ranks.shared_errors():
        states = _local_states(run, mine, np.asarray(lengths)[mine], read)
    whole = np.zeros((len(lengths), run.model.config.hidden_size), dtype=np.float32)
    for rank, part in enumerate(ranks.gather(states)):
        whole[rank :: ranks.world] = part
    return whole


def _local_states(
    run: LoadedRun, numbers: Ints, lengths: Ints, read: Callable[[int], Ints]
) -> NDArray[np.float32]:
    """Return the mean states of the texts of this rank, float32 [texts, hidden]."""
    means = np.zeros((len(numbers), run.model.config.hidden_size), dtype=np.float32)
    pad = run.objective.vocabulary.pad
    # Texts of similar length share a batch: they attend in one group.
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), _ROWS):
        chosen = order[first : first + _ROWS]
        texts = [read(number) for number in numbers[chosen].tolist()]
        batch = collate([run.objective.present(text) for text in texts], pad=pad).widen()
        with torch.no_grad():
            states = run.model.trunk(batch.to(run.device)).float().cpu()
        for row, text in enumerate(texts):
            # In every objective the text tokens are at positions 1 to n of their example.
            start = int(batch.starts[row]) + 1
            means[chosen[row]] = states[start : start + len(text)].mean(dim=0).numpy()
    return means
