"""The baseline that ignores the input: it predicts the answer frequencies of the training text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megapt.data import BatchMaker, HeadSpec, Targets
from megapt.data.example import Floats, member_of
from megapt.evaluation.losses import Totals, factors


@dataclass(frozen=True)
class _WindowTargets:
    """The targets of the examples of some windows."""

    targets: dict[str, list[Targets]]
    """The targets of each head."""
    windows: Counter[str]
    """Number of windows with a target for a head or a mixture member; see `member_of`."""


def _collect_targets(maker: BatchMaker, windows: int) -> _WindowTargets:
    """Return the targets of the first `windows` windows, at most one epoch."""
    found = _WindowTargets({head.name: [] for head in maker.objective.heads}, Counter())
    for number in range(min(windows, maker.stream.count)):
        for window in maker.windows([number]):
            examples = maker.examples(window)
            for example in examples:
                for head, target in example.targets.items():
                    found.targets[head].append(target)
            found.windows.update({member_of(head) for e in examples for head in e.targets})
    return found


def _counts(targets: Sequence[Targets], classes: int, *, weighted: bool) -> Floats:
    """Return the count (or the summed weight) of each answer plus one, float64 [classes]."""
    counts = np.ones(classes)
    for target in targets:
        weights = target.weights if weighted else None
        counts += np.bincount(target.labels, weights, minlength=classes)
    return counts


def _score_head(
    head: HeadSpec, train: Sequence[Targets], validation: Sequence[Targets], vocabulary: int
) -> tuple[float, int]:
    """Return the loss sum of a head on its validation targets, and the number of correct ones."""
    classes = head.classes or vocabulary
    counts = _counts(train, classes, weighted=True)
    surprise = -np.log(counts / counts.sum())
    most_frequent = _counts(train, classes, weighted=False).argmax()
    loss, correct = 0.0, 0
    for target in validation:
        each = surprise[target.labels]
        loss += float((each if target.weights is None else each * target.weights).sum())
        correct += int((target.labels == most_frequent).sum())
    return loss, correct


def unigram_scores(
    train: BatchMaker,
    validation: BatchMaker,
    *,
    train_windows: int,
    validation_windows: int,
    vocabulary: int,
) -> dict[str, float]:
    """Return the scores of the best answer that ignores the input.

    The validation targets are those of the model. Every head answers with the frequencies of its
    targets in `train_windows` training windows. One is added to each count, so that an answer
    that never occurred has a probability above 0. If targets have weights w_i in the loss, the
    counts use them too: sum_i w_i * -log q(answer i) is smallest for q proportional to the summed
    weights of each answer. Accuracies are not weighted; they are those of the most frequent
    answer.

    Args:
        train: the training batches.
        validation: the validation batches.
        train_windows: number of training windows to count.
        validation_windows: number of validation windows to score.
        vocabulary: number of token ids.

    Returns:
        The keys of `Scores.reduce`, and `targets/HEAD`, the number of validation targets of each
        head.
    """
    heads = train.objective.heads
    counted = _collect_targets(train, train_windows)
    scored = _collect_targets(validation, validation_windows)
    scores: dict[str, float] = {"loss": 0.0}
    losses: dict[str, float] = {}
    sizes = []
    for head in heads:
        targets = scored.targets[head.name]
        loss, correct = _score_head(head, counted.targets[head.name], targets, vocabulary)
        count = sum(len(target.labels) for target in targets)
        size = sum(len(t.labels) if t.size is None else t.size for t in targets)
        losses[head.name] = loss
        sizes.append(float(size))
        scores[f"targets/{head.name}"] = float(count)
        if size:
            scores[f"loss/{head.name}"] = loss / size
        if count:
            scores[f"accuracy/{head.name}"] = correct / count
    of_part = factors(
        heads, Totals(sizes, [scored.windows[member_of(head.name)] for head in heads])
    )
    scores["loss"] = sum(of_part[part] * loss for part, loss in losses.items())
    return scores
