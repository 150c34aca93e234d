"""Classification from the frozen trunk: documents, score, refusals."""

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

from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.evaluation import LoadedRun, load_run
from megapt.evaluation.measures import MeasureContext, MeasureError, Score
from megapt.evaluation.measures.probe import (
    Probe,
    ProbeConfig,
    classified_correctly,
    probe_documents,
)
from tests.ranks import run_ranks
from tests.training.runs import ALONE

Overfitted = Callable[[str], LoadedRun]


def probe_of(corpus: Corpus, ranks: Ranks = ALONE, window: int = 48, **settings: Any) -> Probe:
    return Probe(ProbeConfig(**settings), MeasureContext(corpus, window, 0, ranks))


def score_of(ranks: Ranks, run: Path, corpus: Path) -> Score:
    return probe_of(Corpus(corpus), ranks, train_documents=75).score(load_run(run))


def test_every_rank_has_the_score_of_one(overfitted: Overfitted, corpus: Corpus) -> None:
    run = overfitted("bert")
    expected = score_of(ALONE, run.folder, corpus.where)
    assert len(expected.items) == len(probe_of(corpus).validation)
    assert expected.value == sum(filter(None, expected.items)) / len(expected.items)
    first, second = run_ranks(2, score_of, run.folder, corpus.where)
    assert first == second
    # Rounding may move a document that lies on the border of two classes.
    assert first.value == pytest.approx(expected.value, abs=1.5 / len(expected.items))


def test_it_sees_no_more_of_a_document_than_the_window(
    overfitted: Overfitted, corpus: Corpus
) -> None:
    run = overfitted("arlm")
    short, long = (probe_of(corpus, window=window).score(run) for window in (1, 48))
    assert short.items != long.items


def test_a_trunk_whose_states_are_not_finite_has_no_score(
    overfitted: Overfitted, corpus: Corpus
) -> None:
    broken = load_run(overfitted("arlm").folder, trained=False)
    with torch.no_grad():
        for parameter in broken.model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(MeasureError, match="not finite"):
        probe_of(corpus).score(broken)


@pytest.mark.parametrize(("split", "label"), [("train", 0), ("train", -1), ("validation", -1)])
def test_a_corpus_without_two_classes_is_refused(corpus: Corpus, split: str, label: int) -> None:
    splits = {name: getattr(corpus, name) for name in ("train", "validation")}
    labels = np.full(len(splits[split]), label, dtype=np.int32)
    splits[split] = SimpleNamespace(labels=labels)
    with pytest.raises(MeasureError, match=r"two classes .*--label-field"):
        probe_of(SimpleNamespace(**splits))  # type: ignore[arg-type]


def split_with(labels: Any) -> Any:
    return SimpleNamespace(labels=np.array(labels, dtype=np.int32))


@given(st.lists(st.integers(-1, 2), max_size=60), st.integers(1, 70))
def test_documents_are_labeled_and_evenly_spaced(labels: list[int], most: int) -> None:
    chosen = probe_documents(split_with(labels), most).tolist()
    labeled = [document for document, label in enumerate(labels) if label >= 0]
    assert len(chosen) == min(most, len(labeled))
    assert set(chosen) <= set(labeled)
    steps = np.diff([labeled.index(document) for document in chosen])
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
    (train, labels), (validation, truth) = blobs(0, 20.0), blobs(1, 20.0)
    assert classified_correctly(scale * train, labels, scale * validation, truth, 1.0).all()


def test_features_without_the_class_score_as_chance_does() -> None:
    (train, labels), (validation, truth) = blobs(0, 0.0, 300), blobs(1, 0.0, 300)
    assert 60 < classified_correctly(train, labels, validation, truth, 0.01).sum() < 140


def test_dead_features_give_the_majority() -> None:
    labels = np.array([0] * 60 + [1] * 40, dtype=np.int32)
    constant = np.ones((100, 8), dtype=np.float32)
    assert classified_correctly(constant, labels, constant, labels, 1.0).sum() == 60
