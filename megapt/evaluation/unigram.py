"""The baseline that knows nothing of the input: how often each answer occurs in training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from megapt.data import BatchMaker, HeadSpec
from megapt.data.example import Ints

Answers = dict[str, Ints]


def _answers(maker: BatchMaker, windows: int) -> Answers:
    """Return the targets of every head in the first `windows` windows, at most an epoch."""
    found: dict[str, list[Ints]] = {head.name: [] for head in maker.objective.heads}
    for number in range(min(windows, maker.stream.count)):
        for window in maker.stream.windows([number]):
            for example in maker.examples(window):
                for head, target in example.targets.items():
                    found[head].append(target.labels)
    empty = np.zeros(0, dtype=np.int64)
    return {head: np.concatenate([empty, *parts]) for head, parts in found.items()}


def unigram_scores(
    train: BatchMaker,
    heldout: BatchMaker,
    *,
    train_windows: int,
    heldout_windows: int,
    vocabulary: int,
) -> dict[str, float]:
    """Score the best answer that ignores the input, on the same held-out targets as the model.

    Every head answers with the frequencies of its targets in `train_windows` training windows,
    one added to each count so that an answer never seen is not impossible.

    Returns:
        The keys of `Scores.reduce`, and `targets/HEAD`, the held-out targets of each head.
    """
    heads: Iterable[HeadSpec] = train.objective.heads
    seen = _answers(train, train_windows)
    asked = _answers(heldout, heldout_windows)
    scores: dict[str, float] = {"loss": 0.0}
    for head in heads:
        classes = vocabulary if head.kind == "token" else head.classes
        counts = np.bincount(seen[head.name], minlength=classes) + 1.0
        surprise = -np.log(counts / counts.sum())
        answers = asked[head.name]
        scores[f"targets/{head.name}"] = float(len(answers))
        if len(answers):
            loss = float(surprise[answers].mean())
            scores["loss"] += head.weight * loss
            scores[f"loss/{head.name}"] = loss
            scores[f"accuracy/{head.name}"] = float((answers == counts.argmax()).mean())
    return scores
