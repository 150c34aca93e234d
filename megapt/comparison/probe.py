"""The shared measure of a comparison: the same documents and the same probe for every member."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megapt.comparison.results import Interval, wilson_interval
from megapt.config import CompareConfig
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.evaluation import probe_documents, probe_features, probe_score
from megapt.model import PretrainingModel
from megapt.objectives import Objective


@dataclass(frozen=True)
class SharedProbe:
    """Documents of either split, and how a trunk is scored on them."""

    config: CompareConfig
    corpus: Corpus
    ranks: Ranks
    train: NDArray[np.int64]
    """Training documents, int64 [n]."""
    heldout: NDArray[np.int64]
    """Held-out documents, int64 [m]."""

    @property
    def majority(self) -> float:
        """Share of the most frequent class among the held-out documents."""
        labels = self.corpus.valid.labels[self.heldout]
        return float(np.bincount(labels).max() / len(labels))

    def score(self, model: PretrainingModel, objective: Objective) -> tuple[float, Interval]:
        """Return the accuracy of the probe on this trunk, with its 95 % interval, on all ranks."""
        window = self.config.data.window
        features = [
            probe_features(model, objective, split, documents, window, self.ranks)
            for split, documents in (
                (self.corpus.train, self.train),
                (self.corpus.valid, self.heldout),
            )
        ]
        correct = 0
        if self.ranks.main:
            correct = probe_score(
                features[0],
                self.corpus.train.labels[self.train],
                features[1],
                self.corpus.valid.labels[self.heldout],
                self.config.probe.inverse_regularisation,
            )
        correct = int(self.ranks.sum([correct])[0])
        return correct / len(self.heldout), wilson_interval(correct, len(self.heldout))


def choose_probe(config: CompareConfig, corpus: Corpus, ranks: Ranks) -> SharedProbe | None:
    """Return the probe of a comparison; None if the corpus has no two classes to tell apart."""
    with ranks.together():
        train = probe_documents(corpus.train, config.probe.train_documents)
        heldout = probe_documents(corpus.valid, config.probe.heldout_documents)
    if len(np.unique(corpus.train.labels[train])) < 2 or not len(heldout):
        return None
    return SharedProbe(config, corpus, ranks, train, heldout)
