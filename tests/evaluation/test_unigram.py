"""The baseline that ignores the input."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from megapt.config import Origins
from megapt.data import BatchMaker, Corpus
from megapt.evaluation.unigram import unigram_scores
from megapt.training.prepared import prepare
from tests.training.runs import ALONE, run_config

SETTINGS = {
    "bert": {"pair_weight": 0.5},
    "msc": {"class_loss_weight": 3.0, "balance_classes": True},
}


def answers_of(maker: BatchMaker, head: str, windows: int) -> list[tuple[int, float]]:
    """The right answers, each with its weight."""
    return [
        answer
        for window in maker.stream.windows(range(min(windows, maker.stream.count)))
        for example in maker.examples(window)
        if (target := example.targets.get(head)) is not None
        for answer in zip(
            target.labels.tolist(),
            [1.0] * len(target.labels) if target.weights is None else target.weights.tolist(),
            strict=True,
        )
    ]


def sizes_of(maker: BatchMaker, head: str, windows: int) -> float:
    return sum(
        len(target.labels) if target.size is None else target.size
        for window in maker.stream.windows(range(min(windows, maker.stream.count)))
        for example in maker.examples(window)
        if (target := example.targets.get(head)) is not None
    )


@pytest.mark.parametrize("objective", ["arlm", "mlm", "nsp", "bert", "msc", "mgm", "diffusion"])
@pytest.mark.parametrize(("train_windows", "validation_windows"), [(20, 8), (10**6, 10**6)])
def test_scores_are_those_of_a_direct_computation(
    corpus: Corpus, tmp_path: Path, objective: str, train_windows: int, validation_windows: int
) -> None:
    section = {"name": objective, **SETTINGS.get(objective, {})}
    config = run_config(corpus.where, tmp_path / "run", objective=section)
    prepared = prepare(config, ALONE, Origins(), corpus)
    size = corpus.vocabulary.size
    scores = unigram_scores(
        prepared.maker,
        prepared.validation,
        train_windows=train_windows,
        validation_windows=validation_windows,
        vocabulary=size,
    )
    expected = {"loss": 0.0}
    for head in prepared.parts.objective.heads:
        classes = size if head.kind == "token" else head.classes
        answers = answers_of(prepared.maker, head.name, train_windows)
        seen, weights = Counter(answer for answer, _ in answers), Counter[int]()
        for answer, weight in answers:
            weights[answer] += weight
        asked = answers_of(prepared.validation, head.name, validation_windows)
        total = sum(weights.values()) + classes
        nats = -sum(weight * math.log((weights[answer] + 1) / total) for answer, weight in asked)
        loss = nats / sizes_of(prepared.validation, head.name, validation_windows)
        best = min(seen, key=lambda answer: (-seen[answer], answer))
        expected[f"targets/{head.name}"] = len(asked)
        expected[f"loss/{head.name}"] = loss
        expected[f"accuracy/{head.name}"] = [answer for answer, _ in asked].count(best) / len(asked)
        expected["loss"] += head.weight * loss
    assert scores == pytest.approx(expected, rel=1e-9)


def test_weighted_counts_are_the_best_answer_to_weighted_targets(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Balanced classes weigh the same in all: the best blind answer gives each the same chance."""
    section = {"name": "msc", "balance_classes": True}
    config = run_config(corpus.where, tmp_path / "run", objective=section)
    prepared = prepare(config, ALONE, Origins(), corpus)
    seen = Counter(answers_of(prepared.maker, "class", 10**6))
    by_class = Counter[int]()
    for (label, weight), count in seen.items():
        by_class[label] += weight * count
    shares = [by_class[label] / sum(by_class.values()) for label in sorted(by_class)]

    def loss(answer: list[float]) -> float:
        return -sum(w * n * math.log(answer[label]) for (label, w), n in seen.items())

    plain = Counter(label for label, _ in seen.elements())
    unweighted = [plain[label] / plain.total() for label in sorted(plain)]
    assert loss(shares) <= loss(unweighted)
    scores = unigram_scores(
        prepared.maker,
        prepared.maker,
        train_windows=10**6,
        validation_windows=10**6,
        vocabulary=corpus.vocabulary.size,
    )
    counted = loss(shares) / plain.total()
    assert scores["loss/class"] == pytest.approx(counted, rel=0.01)  # one is added to each count
