"""Repetition: whom it asks, and what of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from megapt.data import Corpus
from megapt.evaluation import LoadedRun, sample_texts, write_samples
from megapt.evaluation.measures import MeasureContext, MeasureError
from megapt.evaluation.measures.repetition import Repetition, RepetitionConfig
from tests.training.runs import ALONE

Overfitted = Callable[[str], LoadedRun]


def repetition_of(corpus: Corpus, seed: int = 0, **settings: Any) -> Repetition:
    return Repetition(RepetitionConfig(**settings), MeasureContext(corpus, 64, seed, ALONE))


@pytest.mark.parametrize("objective", ["arlm", "mgm"])
def test_it_is_the_mean_over_what_the_samples_of_a_report_write(
    overfitted: Overfitted, corpus: Corpus, objective: str
) -> None:
    run = overfitted(objective)
    measure = repetition_of(corpus, seed=5, num_samples=3, max_new_tokens=20)
    assert measure.problem(run.objective) == ""
    score = measure.score(run)
    samples = write_samples(run, sample_texts(corpus, 3, 64), max_tokens=20, seed=5)
    assert score.items == [sample.repetition for sample in samples]
    counted = [rate for rate in score.items if rate is not None]
    assert score.value == sum(counted) / len(counted)
    assert score.interval is None
    assert measure.items == 3


@pytest.mark.parametrize("objective", ["mlm", "nsp"])
def test_what_does_not_generate_is_told(
    overfitted: Overfitted, corpus: Corpus, objective: str
) -> None:
    said = repetition_of(corpus).problem(overfitted(objective).objective)
    assert said == f"'{objective}' does not generate text"


def test_texts_too_short_for_it_give_no_score(overfitted: Overfitted, corpus: Corpus) -> None:
    with pytest.raises(MeasureError, match="no text of four tokens"):
        repetition_of(corpus, max_new_tokens=3).score(overfitted("arlm"))
