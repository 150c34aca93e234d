"""The baseline that knows nothing of the input: how often each answer occurs in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megapt.data import BatchMaker, HeadSpec, Targets
from megapt.data.example import Floats, asking_member
from megapt.evaluation.losses import Totals, factors


@dataclass(frozen=True)
class Asked:
    """What the examples of some windows ask."""

    targets: dict[str, list[Targets]]
    """Of each head."""
    windows: Counter[str]
    """With a question to a head, or to a member of a mixture; see `asking_member`."""


def _asked(maker: BatchMaker, windows: int) -> Asked:
    """Return what is asked in the first `windows` windows, at most an epoch."""
    asked = Asked({head.name: [] for head in maker.objective.heads}, Counter())
    for number in range(min(windows, maker.stream.count)):
        for window in maker.windows([number]):
            examples = maker.examples(window)
            for example in examples:
                for head, target in example.targets.items():
                    asked.targets[head].append(target)
            asked.windows.update({asking_member(head) for e in examples for head in e.targets})
    return asked


def _counts(targets: Sequence[Targets], classes: int, *, weighted: bool) -> Floats:
    """Return how often each answer occurs, or its weight in all; one is added to each."""
    counts = np.ones(classes)
    for target in targets:
        weights = target.weights if weighted else None
        counts += np.bincount(target.labels, weights, minlength=classes)
    return counts


def _scored(
    head: HeadSpec, seen: Sequence[Targets], asked: Sequence[Targets], vocabulary: int
) -> tuple[float, int]:
    """Return the loss sum of a head on the targets `asked`, and how many are right."""
    classes = head.classes or vocabulary
    counts = _counts(seen, classes, weighted=True)
    surprise = -np.log(counts / counts.sum())
    commonest = _counts(seen, classes, weighted=False).argmax()
    loss, right = 0.0, 0
    for target in asked:
        each = surprise[target.labels]
        loss += float((each if target.weights is None else each * target.weights).sum())
        right += int((target.labels == commonest).sum())
    return loss, right


def unigram_scores(
    train: BatchMaker,
    validation: BatchMaker,
    *,
    train_windows: int,
    validation_windows: int,
    vocabulary: int,
) -> dict[str, float]:
    """Score the best answer that ignores the input, on the same held-out targets as the model.

    Every head answers with the frequencies of its targets in `train_windows` training windows,
    one added to each count so that an answer never seen is not impossible. Where targets have
    weights w_i in the loss, they have them in the counts: sum_i w_i * -log q(answer i) is least
    for q in proportion to the summed weights of each answer. Accuracies are not weighed; theirs
    is that of the commonest answer.

    Returns:
        The keys of `Scores.reduce`, and `targets/HEAD`, the held-out targets of each head.
    """
    heads = train.objective.heads
    seen, asked = _asked(train, train_windows), _asked(validation, validation_windows)
    scores: dict[str, float] = {"loss": 0.0}
    losses: dict[str, float] = {}
    sizes = []
    for head in heads:
        targets = asked.targets[head.name]
        loss, right = _scored(head, seen.targets[head.name], targets, vocabulary)
        count = sum(len(target.labels) for target in targets)
        size = sum(len(t.labels) if t.size is None else t.size for t in targets)
        losses[head.name] = loss
        sizes.append(float(size))
        scores[f"targets/{head.name}"] = float(count)
        if size:
            scores[f"loss/{head.name}"] = loss / size
        if count:
            scores[f"accuracy/{head.name}"] = right / count
    of_part = factors(
        heads, Totals(sizes, [asked.windows[asking_member(head.name)] for head in heads])
    )
    scores["loss"] = sum(of_part[part] * loss for part, loss in losses.items())
    return scores
