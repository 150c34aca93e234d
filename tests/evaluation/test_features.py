"""The mean states of texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from megapt.data import Corpus, collate
from megapt.data.example import Ints
from megapt.distributed.ranks import Ranks
from megapt.errors import DamagedError
from megapt.evaluation import LoadedRun, load_run, mean_states
from tests.ranks import run_ranks
from tests.training.runs import ALONE

Overfitted = Callable[[str], LoadedRun]


def texts_of(corpus: Corpus, window: int) -> list[Ints]:
    return [corpus.train.piece(document).tokens[:window] for document in range(75)]


def features_of(ranks: Ranks, run: Path, corpus: Path, window: int) -> np.ndarray:
    texts = texts_of(Corpus(corpus), window)
    return mean_states(load_run(run), [len(text) for text in texts], texts.__getitem__, ranks)


@pytest.mark.parametrize("objective", ["arlm", "bert", "mgm"])
def test_features_are_the_mean_states_of_each_document_alone(
    overfitted: Overfitted, corpus: Corpus, objective: str
) -> None:
    run, window = overfitted(objective), 40
    found = features_of(ALONE, run.folder, corpus.where, window)
    assert found.dtype == np.float32
    for row, tokens in enumerate(texts_of(corpus, window)):
        batch = collate([run.objective.present(tokens)], pad=0).widen()
        with torch.no_grad():
            states = run.model.trunk(batch)[1 : len(tokens) + 1]
        assert found[row] == pytest.approx(states.mean(dim=0).numpy(), abs=1e-5)


def test_two_ranks_find_the_features_of_one(overfitted: Overfitted, corpus: Corpus) -> None:
    run = overfitted("bert")
    expected = features_of(ALONE, run.folder, corpus.where, 48)
    for found in run_ranks(2, features_of, run.folder, corpus.where, 48):
        assert found.shape == expected.shape
        assert np.allclose(found, expected, atol=1e-5)


def fail_on_one(ranks: Ranks, run: Path) -> str:
    def read(number: int) -> Ints:
        if number == 1:
            raise DamagedError("text 1 is damaged")
        return np.arange(40, 44)

    with pytest.raises(DamagedError) as raised:
        mean_states(load_run(run), [4, 4], read, ranks)
    return str(raised.value)


def test_a_text_that_one_rank_cannot_read_ends_all(overfitted: Overfitted) -> None:
    said = run_ranks(2, fail_on_one, overfitted("arlm").folder)
    assert said == ["text 1 is damaged"] * 2
