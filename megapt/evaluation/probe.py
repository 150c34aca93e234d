"""The measure that all objectives share: classification of documents from the frozen trunk.

Every document stands before the trunk as its objective is used to seeing text, uncorrupted; the
mean of its text tokens' last states is its feature. A logistic regression learns the class from
the features of training documents and is scored on held-out ones. Nothing of the trunk changes, so
the score tells what the states already hold (Alain & Bengio 2017; Conneau et al. 2018).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from megapt.data import Split, collate
from megapt.distributed.ranks import Ranks
from megapt.model import PretrainingModel
from megapt.objectives import Objective

_ROWS = 32


def probe_documents(split: Split, most: int) -> NDArray[np.int64]:
    """Return at most `most` labelled documents, evenly spaced over the split, int64 [n]."""
    labelled = np.flatnonzero(split.labels >= 0)
    if len(labelled) <= most:
        return labelled
    return labelled[np.arange(most) * len(labelled) // most]


def probe_features(
    model: PretrainingModel,
    objective: Objective,
    split: Split,
    documents: NDArray[np.int64],
    window: int,
    ranks: Ranks,
) -> NDArray[np.float32]:
    """Return the mean last state of each document, float32 [documents, hidden], on every rank.

    A document longer than `window` allows is cut at its end. The ranks share the documents.

    Raises:
        MegaptError: on every rank, if one of them cannot read its documents.
    """
    mine = documents[ranks.rank :: ranks.world]
    with ranks.together():
        features = _features_alone(model, objective, split, mine, window, ranks.device)
    whole = np.zeros((len(documents), model.config.hidden), dtype=np.float32)
    for rank, part in enumerate(ranks.gather(features)):
        whole[rank :: ranks.world] = part
    return whole


def _features_alone(
    model: PretrainingModel,
    objective: Objective,
    split: Split,
    documents: NDArray[np.int64],
    window: int,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the features of these documents, which this rank computes."""
    features = np.zeros((len(documents), model.config.hidden), dtype=np.float32)
    pad = objective.vocabulary.pad
    # Documents of like length share a batch: they attend in one group.
    order = np.argsort(split.lengths[documents], kind="stable")
    for first in range(0, len(order), _ROWS):
        chosen = order[first : first + _ROWS]
        pieces = [
            split.piece(d, 0, min(int(split.lengths[d]), window))
            for d in documents[chosen].tolist()
        ]
        batch = collate([objective.present(piece.tokens) for piece in pieces], pad=pad).widen()
        with torch.no_grad():
            states = model.trunk(batch.to(device)).float().cpu()
        for row, piece in enumerate(pieces):
            # In every objective the text tokens are positions 1 to n of their example.
            first = int(batch.starts[row]) + 1
            features[chosen[row]] = states[first : first + len(piece.tokens)].mean(dim=0).numpy()
    return features


def probe_score(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int32],
    heldout: NDArray[np.float32],
    heldout_labels: NDArray[np.int32],
    inverse_regularisation: float,
) -> int:
    """Fit on the training features and return how many held-out documents are classified right.

    Args:
        train: features, float32 [n, hidden], standardised here.
        train_labels: classes, int32 [n].
        heldout: features, float32 [m, hidden].
        heldout_labels: classes, int32 [m].
        inverse_regularisation: C of scikit-learn's logistic regression with an L2 penalty.
    """
    # Two seconds, which no other start of a rank has to wait for.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=inverse_regularisation, max_iter=1000)
    )
    probe.fit(train, train_labels)
    return int((probe.predict(heldout) == heldout_labels).sum())
