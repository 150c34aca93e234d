"""The shared measure: documents, features, score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import Corpus, collate
from megapt.distributed.ranks import Ranks
from megapt.evaluation import LoadedRun, load_run, probe_documents, probe_features, probe_score
from tests.ranks import run_ranks
from tests.training.runs import ALONE

Overfitted = Callable[[str], LoadedRun]


def features_of(ranks: Ranks, run: Path, corpus: Path, window: int) -> np.ndarray:
    loaded, split = load_run(run), Corpus(corpus).train
    documents = probe_documents(split, 75)
    return probe_features(loaded.model, loaded.objective, split, documents, window, ranks)


@pytest.mark.parametrize("objective", ["arlm", "bert", "mgm"])
def test_features_are_the_mean_states_of_each_document_alone(
    overfitted: Overfitted, corpus: Corpus, objective: str
) -> None:
    run, window = overfitted(objective), 40
    found = features_of(ALONE, run.folder, corpus.where, window)
    assert found.dtype == np.float32
    for row, document in enumerate(probe_documents(corpus.train, 75).tolist()):
        tokens = corpus.train.piece(document).tokens[:window]
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


def split_with(labels: Any) -> Any:
    return SimpleNamespace(labels=np.array(labels, dtype=np.int32))


@given(st.lists(st.integers(-1, 2), max_size=60), st.integers(1, 70))
def test_documents_are_labelled_and_evenly_spaced(labels: list[int], most: int) -> None:
    chosen = probe_documents(split_with(labels), most).tolist()
    labelled = [document for document, label in enumerate(labels) if label >= 0]
    assert len(chosen) == min(most, len(labelled))
    assert set(chosen) <= set(labelled)
    steps = np.diff([labelled.index(document) for document in chosen])
    assert all(steps > 0)
    assert not len(steps) or max(steps) - min(steps) <= 1


def test_documents_span_the_whole_split() -> None:
    assert probe_documents(split_with([0] * 100), 4).tolist() == [0, 25, 50, 75]


def blobs(seed: int, distance: float, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes around centres that are `distance` apart, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    centres = distance * np.eye(3, 8)
    return (centres[labels] + rng.normal(size=(count, 8))).astype(np.float32), labels


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_separable_classes_are_told_apart_at_any_scale(scale: float) -> None:
    (train, labels), (heldout, truth) = blobs(0, 20.0), blobs(1, 20.0)
    assert probe_score(scale * train, labels, scale * heldout, truth, 1.0) == 100


def test_features_without_the_class_score_as_chance_does() -> None:
    (train, labels), (heldout, truth) = blobs(0, 0.0, 300), blobs(1, 0.0, 300)
    assert 60 < probe_score(train, labels, heldout, truth, 0.01) < 140


def test_dead_features_give_the_majority() -> None:
    labels = np.array([0] * 60 + [1] * 40, dtype=np.int32)
    constant = np.ones((100, 8), dtype=np.float32)
    assert probe_score(constant, labels, constant, labels, 1.0) == 60
