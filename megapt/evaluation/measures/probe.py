"""Classification of documents from the frozen trunk.

The feature of a document is the mean of the last hidden states of its tokens. A logistic regression
learns the class from the features of training documents and is scored on validation documents. The
trunk does not change, so the score shows what the states already represent (Alain & Bengio 2017;
Conneau et al. 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from megapt.config import Section
from megapt.config.section import PositiveFloat, PositiveInt
from megapt.data import Split
from megapt.data.example import Ints
from megapt.evaluation.features import mean_states
from megapt.evaluation.loading import LoadedRun
from megapt.evaluation.measures.base import Measure, MeasureContext, MeasureError
from megapt.evaluation.scores import Score, share_score


class ProbeConfig(Section):
    """Settings of `probe`."""

    train_documents: PositiveInt = 6000
    """Largest number of labeled training documents."""
    validation_documents: PositiveInt = 4000
    """Largest number of labeled validation documents."""
    C: PositiveFloat = 1.0
    """C of the logistic regression on standardized features; the same for all members."""


class Probe(Measure):
    """Accuracy of a classifier on the frozen trunk.

    A document longer than the window is truncated at its end.
    """

    name = "probe"
    title = "Probe accuracy"
    about = (
        "the share of validation documents whose class a classifier on the frozen trunk predicts "
        "correctly, with 95 % Wilson interval"
    )
    uses_labels = True
    Config = ProbeConfig

    def __init__(self, config: ProbeConfig, context: MeasureContext) -> None:
        super().__init__(config, context)
        corpus = context.corpus
        self.train = probe_documents(corpus.train, config.train_documents)
        self.validation = probe_documents(corpus.validation, config.validation_documents)
        if len(np.unique(corpus.train.labels[self.train])) < 2 or not len(self.validation):
            raise MeasureError(
                "needs training documents of two classes and validation documents with a class; "
                "build the corpus with --label-field"
            )
        self.items = len(self.validation)
        self.material = f"{len(self.train):,} training and {self.items:,} validation documents"
        counts = np.bincount(corpus.validation.labels[self.validation])
        self.baselines = {"majority class": float(counts.max() / self.items)}

    def score(self, run: LoadedRun) -> Score:
        """Return the accuracy; an item is a validation document: 1 if it is right, else 0."""
        corpus = self.context.corpus
        train = self._features(run, corpus.train, self.train)
        validation = self._features(run, corpus.validation, self.validation)
        if not (np.isfinite(train).all() and np.isfinite(validation).all()):
            raise MeasureError("the trunk's states are not finite")
        return self.on_main(
            lambda: share_score(
                classified_correctly(
                    train,
                    corpus.train.labels[self.train],
                    validation,
                    corpus.validation.labels[self.validation],
                    self.config.C,
                ).tolist()
            )
        )

    def _features(self, run: LoadedRun, split: Split, documents: Ints) -> NDArray[np.float32]:
        window = self.context.window

        def read(number: int) -> Ints:
            document = int(documents[number])
            return split.piece(document, 0, min(int(split.lengths[document]), window)).tokens

        return mean_states(run, split.lengths[documents], read, self.ranks)


def probe_documents(split: Split, most: int) -> NDArray[np.int64]:
    """Return at most `most` labeled documents, evenly spaced over the split, int64 [n]."""
    labeled = np.flatnonzero(split.labels >= 0)
    if len(labeled) <= most:
        return labeled
    return labeled[np.arange(most) * len(labeled) // most]


def classified_correctly(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int32],
    validation: NDArray[np.float32],
    validation_labels: NDArray[np.int32],
    inverse_regularization: float,
) -> NDArray[np.bool_]:
    """Fit on the training features; return which validation documents are correct, bool [m].

    Args:
        train: features, float32 [n, hidden], standardized here.
        train_labels: classes, int32 [n].
        validation: features, float32 [m, hidden].
        validation_labels: classes, int32 [m].
        inverse_regularization: C of scikit-learn's logistic regression with an L2 penalty.
    """
    # These imports take two seconds; only a rank that classifies waits for them.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=inverse_regularization, max_iter=1000)
    )
    probe.fit(train, train_labels)
    correct: NDArray[np.bool_] = probe.predict(validation) == validation_labels
    return correct
