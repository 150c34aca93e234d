from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from megapt.data import CounterRng, Window
from megapt.errors import ConfigError
from megapt.objectives import Context, ObjectiveError
from megapt.objectives.msc import Msc, MscConfig
from tests.objectives.builders import LABELS, build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, windows


def refusal(**arguments: object) -> str:
    with pytest.raises(ConfigError) as error:
        build("msc", **arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@given(windows, keys)
def test_the_class_of_the_document_is_read_at_cls(window: Window, key: int) -> None:
    for example, piece in zip(examples_of(build("msc"), window, key), window.pieces, strict=True):
        assert example.targets["class"].positions.tolist() == [0]
        assert example.targets["class"].labels.tolist() == [piece.label]


@given(windows, keys)
def test_the_mask_is_that_of_mlm_under_the_same_key(window: Window, key: int) -> None:
    ours, theirs = (examples_of(build(name), window, key) for name in ("msc", "mlm"))
    for example, masked in zip(ours, theirs, strict=True):
        assert example.tokens.tolist() == masked.tokens.tolist()
        places = example.targets["tokens"].positions
        assert places.tolist() == masked.targets["tokens"].positions.tolist()
        assert example.document == masked.document


def test_a_document_without_a_class_gives_its_masked_tokens_alone() -> None:
    labeled, bare = make_piece([50, 51], label=1), make_piece([60, 61], document=1)
    objective = build("msc", unlabeled_documents=5, unlabeled=True)
    first, second = examples_of(objective, Window(0, 0, (labeled, bare)), 0)
    assert set(first.targets) == {"tokens", "class"}
    assert set(second.targets) == {"tokens"}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((), "the corpus has no classes; build it with --label-field"),
        (("one",), "the corpus has only one class, 'one', so every answer would be the same"),
    ],
)
def test_a_corpus_without_two_classes_is_refused(labels: tuple[str, ...], said: str) -> None:
    assert said in refusal(labels=labels)


def test_documents_without_a_class_are_refused_unless_they_are_asked_for() -> None:
    text = refusal(unlabeled_documents=3)
    assert "3 training documents" in text
    assert "unlabeled=true" in text


def test_the_heads_carry_the_class_names_and_the_weight() -> None:
    tokens, classes = build("msc", class_loss_weight=0.25).heads
    assert (tokens.name, tokens.kind, tokens.weight) == ("tokens", "token", 1.0)
    assert (classes.name, classes.kind, classes.weight) == ("class", "sequence", 0.25)
    assert (classes.classes, classes.labels) == (2, LABELS)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan"), "half"])
def test_a_weight_that_is_no_weight_is_refused(weight: object) -> None:
    assert "objective.class_loss_weight" in refusal(class_loss_weight=weight)


def test_the_cost_is_that_of_mlm_and_the_class() -> None:
    ours, theirs = build("msc").cost(61), build("mlm").cost(61)
    assert (ours.positions, ours.targets) == (theirs.positions, theirs.targets + 1)


def test_the_refusal_tells_the_coverage() -> None:
    context = Context(VOCABULARY, 64, LABELS, unlabeled=3, documents=12)
    with pytest.raises(ObjectiveError, match=r"3 of 12 training documents have none .*75\.0%"):
        Msc(MscConfig(), context)


# --- balance --------------------------------------------------------------------------------


def balanced(*counts: int, labels: tuple[str, ...] = LABELS) -> Msc:
    context = Context(VOCABULARY, 64, labels, label_counts=counts)
    return Msc(MscConfig(balance_classes=True), context)


def class_weight(objective: Msc, label: int) -> list[float]:
    piece = make_piece([50, 51], label=label)
    [example] = objective.examples(Window(0, 0, (piece,)), CounterRng(0))
    weights = example.targets["class"].weights
    assert weights is not None
    return weights.tolist()


@pytest.mark.parametrize(
    ("counts", "weights"),
    [((10, 10), (1, 1)), ((30, 10), (40 / 60, 2)), ((1, 99), (50, 100 / 198))],
)
def test_a_class_is_weighed_by_what_it_is_rarer_than_the_mean(
    counts: tuple[int, int], weights: tuple[float, float]
) -> None:
    """N / (K N_c), as `class_weight="balanced"` of scikit-learn."""
    objective = balanced(*counts)
    assert [class_weight(objective, label) for label in (0, 1)] == [
        [pytest.approx(weight)] for weight in weights
    ]


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=9))
def test_weights_are_those_of_scikit_learn_and_1_on_average(counts: list[int]) -> None:
    objective = balanced(*counts, labels=tuple(f"class {i}" for i in range(len(counts))))
    weights = [class_weight(objective, label)[0] for label in range(len(counts))]
    theirs = compute_class_weight(
        "balanced", classes=np.arange(len(counts)), y=np.repeat(np.arange(len(counts)), counts)
    )
    assert weights == pytest.approx(theirs.tolist())
    assert np.average(weights, weights=counts) == pytest.approx(1)


def test_without_balance_no_class_has_a_weight() -> None:
    [example] = examples_of(build("msc"), Window(0, 0, (make_piece([50], label=0),)), 0)
    assert example.targets["class"].weights is None


def test_a_class_without_documents_cannot_be_balanced() -> None:
    with pytest.raises(ObjectiveError, match=r"'field' has 0 of 7 \(sea: 7, field: 0\)") as error:
        balanced(7, 0)
    assert len(str(error.value).splitlines()) == 1


def test_unknown_numbers_cannot_be_balanced() -> None:
    assert "which this corpus does not record" in refusal(balance_classes=True)
