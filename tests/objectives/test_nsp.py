from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from megapt.data import CounterRng, Example, Piece, Window
from megapt.errors import ConfigError
from megapt.objectives import Context, Cost, ObjectiveError
from megapt.objectives.nsp import Nsp, NspConfig
from megapt.objectives.pairs import RIGHT, WRONG, cut_pieces
from megapt.objectives.reference_pairs import bert_pairs
from tests.chance import assert_fits
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, sized_windows, windows

V = VOCABULARY
NSP = build("nsp")


def two_sentences(document: int) -> Piece:
    """A piece whose tokens name the document and the sentence."""
    tokens = [40 + 10 * document] * 2 + [41 + 10 * document] * 3
    return make_piece(tokens, sentences=(0, 2), document=document)


def window_of(documents: int) -> Window:
    return Window(0, 0, tuple(two_sentences(document) for document in range(documents)))


def split(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A and B of [CLS] A [SEP] B [SEP]."""
    [first, second] = np.flatnonzero(example.tokens == V.sep)
    assert example.tokens[0] == V.cls
    assert second == len(example) - 1
    return tuple(example.tokens[1:first].tolist()), tuple(example.tokens[first + 1 : -1].tolist())


def label_of(example: Example) -> int:
    target = example.targets["nsp"]
    assert target.positions.tolist() == [0]
    return int(target.labels[0])


def pieces_by_document(window: Window) -> dict[int, Piece]:
    return {piece.document: piece for piece in window.pieces}


@given(windows, keys)
def test_every_a_and_every_b_comes_once_under_each_label(window: Window, key: int) -> None:
    true, _ = cut_pieces(window.pieces, "nsp", CounterRng(key))
    firsts = Counter(tuple(pair.a.tokens.tolist()) for pair in true)
    seconds = Counter(tuple(pair.b.tokens.tolist()) for pair in true)
    examples = examples_of(NSP, window, key)
    for label in (RIGHT, WRONG):
        asked = [split(example) for example in examples if label_of(example) == label]
        assert Counter(a for a, _ in asked) == firsts
        assert Counter(b for _, b in asked) == seconds


@given(windows, keys)
def test_a_right_b_follows_and_a_wrong_b_is_of_another_document(window: Window, key: int) -> None:
    texts = {d: p.tokens.tolist() for d, p in pieces_by_document(window).items()}
    for example in examples_of(NSP, window, key):
        a, b = split(example)
        own = texts[example.document]
        if label_of(example) == RIGHT:
            assert [*a, *b] == own
        else:
            others = [text for document, text in texts.items() if document != example.document]
            assert any(text[-len(b) :] == list(b) for text in others)


def test_every_other_document_is_equally_likely_to_give_the_wrong_b() -> None:
    counts = np.zeros((4, 4))
    for key in range(3000):
        for example in examples_of(NSP, window_of(4), key):
            if label_of(example) == WRONG:
                counts[example.document, (split(example)[1][0] - 41) // 10] += 1
    assert not counts.diagonal().any()
    for document in range(4):
        assert_fits(np.delete(counts[document], document), np.ones(3))


@given(windows, keys)
def test_both_answers_are_equally_frequent_in_every_window(window: Window, key: int) -> None:
    labels = [label_of(example) for example in examples_of(NSP, window, key)]
    assert labels.count(RIGHT) == labels.count(WRONG)


@given(windows, keys)
def test_examples_depend_on_window_and_key_alone(window: Window, key: int) -> None:
    one, same = (examples_of(NSP, window, key) for _ in range(2))
    assert [e.tokens.tolist() for e in one] == [e.tokens.tolist() for e in same]


def test_other_keys_make_other_examples() -> None:
    window = Window(0, 0, tuple(random_piece(60, 0, document=d) for d in range(4)))
    made = {str([split(e) for e in examples_of(NSP, window, key)]) for key in range(30)}
    assert len(made) == 30


@pytest.mark.parametrize("documents", [0, 1])
def test_a_lone_piece_forms_no_pair(documents: int) -> None:
    assert examples_of(NSP, window_of(documents), 0) == []


def test_pieces_of_one_sentence_form_no_pair() -> None:
    single = make_piece([50, 51], document=9)
    window = Window(0, 0, (single, *window_of(2).pieces, single))
    assert {example.document for example in examples_of(NSP, window, 0)} == {0, 1}
    window = Window(0, 0, (*window_of(1).pieces, single))
    assert examples_of(NSP, window, 0) == []


def test_golden_layout() -> None:
    examples = examples_of(NSP, window_of(2), 0)
    assert [(e.document, split(e), label_of(e)) for e in examples] == [
        (0, ((40, 40), (41, 41, 41)), RIGHT),
        (0, ((40, 40), (51, 51, 51)), WRONG),
        (1, ((50, 50), (51, 51, 51)), RIGHT),
        (1, ((50, 50), (41, 41, 41)), WRONG),
    ]
    for example in examples:
        assert example.segments.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert example.positions.tolist() == list(range(8))
        assert example.visible.all()


@given(sized_windows(), keys)
def test_a_wrong_pair_of_more_than_w_tokens_loses_the_end_of_b(
    drawn: tuple[int, Window], key: int
) -> None:
    size, window = drawn
    cut, uncut = (examples_of(build("nsp", window=w), window, key) for w in (size, 2 * size))
    for example, whole in zip(cut, uncut, strict=True):
        (a, b), (same, long) = split(example), split(whole)
        assert a == same
        assert b == long[: size - len(a)] != ()
        assert label_of(example) == label_of(whole) == WRONG or b == long


def test_a_pair_of_w_tokens_is_whole_and_one_more_is_cut() -> None:
    first = make_piece([40] * 6 + [41] * 2, sentences=(0, 6))
    second = make_piece([50] * 2 + [51] * 4, sentences=(0, 2), document=1)
    window = Window(0, 0, (first, second))
    for size, left in ((10, 4), (9, 3), (8, 2)):
        wrong = examples_of(build("nsp", window=size), window, 0)[1]
        assert split(wrong) == ((40,) * 6, (51,) * left)


@pytest.mark.parametrize(("pooling", "kind"), [("pair", "pair"), ("cls", "sequence")])
def test_one_head_of_two_named_classes(pooling: str, kind: str) -> None:
    [head] = build("nsp", pooling=pooling).heads
    assert (head.name, head.kind, head.classes, head.weight) == ("nsp", kind, 2, 1.0)
    assert head.labels[RIGHT] == "next"
    assert head.labels[WRONG] == "random"


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.pooling"):
        build("nsp", pooling="mean")


@given(sized_windows(), keys)
def test_bert_pairing_asks_the_pairs_of_bert(drawn: tuple[int, Window], key: int) -> None:
    size, window = drawn
    pairs = bert_pairs(window.pieces, "nsp", size, CounterRng(key))
    examples = examples_of(build("nsp", pairing="bert", window=size), window, key)
    for example, pair in zip(examples, pairs, strict=True):
        assert split(example) == (tuple(pair.a.tokens), tuple(pair.b.tokens))
        assert label_of(example) == pair.label
        assert example.document == pair.a.document


def test_the_cost_is_that_of_the_examples() -> None:
    assert build("nsp").cost(5) == Cost(16, 2)
    examples = examples_of(NSP, window_of(8), 0)
    assert sum(map(len, examples)) == 8 * 16
    assert len(examples) == 8 * 2


def test_the_cost_of_bert_pairing_is_that_of_texts_of_many_sentences() -> None:
    objective = build("nsp", pairing="bert")
    pieces = [make_piece([50] * 90, sentences=range(90), document=d) for d in range(6)]
    rows = [examples_of(objective, Window(0, 0, tuple(pieces)), key) for key in range(300)]
    cost = objective.cost(90)
    assert np.mean([sum(map(len, row)) for row in rows]) / 6 == pytest.approx(
        cost.positions, rel=0.05
    )
    assert np.mean([len(row) for row in rows]) / 6 == pytest.approx(cost.targets, rel=0.05)


@pytest.mark.parametrize("pairing", ["balanced", "bert"])
def test_windows_of_one_document_are_refused(pairing: str) -> None:
    config = NspConfig.model_validate({"pairing": pairing})
    with pytest.raises(ObjectiveError, match="'nsp' pairs documents of one window"):
        Nsp(config, Context(V, 64, documents=10, tokens=10_000))
    Nsp(config, Context(V, 64, documents=10, tokens=6_400))
