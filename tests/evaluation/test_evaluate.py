"""Held-out scores of a run, beside those of its baseline."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.data import Corpus
from megapt.errors import ConfigError
from megapt.evaluation import LoadedRun
from megapt.evaluation.evaluate import evaluate_run

Overfitted = Callable[[str], LoadedRun]


def test_a_run_has_the_scores_that_it_ended_with(overfitted: Overfitted) -> None:
    run = overfitted("msc")
    scores = evaluate_run(str(run.folder), run.config.training.validation_windows, None)
    assert scores["model"] == pytest.approx(RunFolder(run.folder).summary()["validation"], rel=1e-5)
    assert scores["unigram"].keys() == scores["model"].keys()


def test_a_corpus_that_moved_is_named(
    overfitted: Overfitted, few_texts: Corpus, corpus: Corpus
) -> None:
    run = overfitted("arlm")
    assert evaluate_run(str(run.folder), 4, str(few_texts.where)) == evaluate_run(
        str(run.folder), 4, None
    )
    with pytest.raises(ConfigError, match="is not the corpus") as raised:
        evaluate_run(str(run.folder), 4, str(corpus.where))
    assert "\n" not in str(raised.value)
