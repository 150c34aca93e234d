from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from megapt.data import CounterRng, Example, Window
from megapt.errors import ConfigError
from megapt.objectives import Context, Cost
from megapt.objectives.pairs import RIGHT, WRONG, cut_pieces
from megapt.objectives.sop import Sop, SopConfig
from tests.chance import assert_fits
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, sized_windows, windows

V = VOCABULARY
SOP = build("sop")


def split(example: Example) -> tuple[list[int], list[int]]:
    """A and B of [CLS] A [SEP] B [SEP]."""
    [first, second] = np.flatnonzero(example.tokens == V.sep)
    assert example.tokens[0] == V.cls
    assert second == len(example) - 1
    return example.tokens[1:first].tolist(), example.tokens[first + 1 : -1].tolist()


def label_of(example: Example) -> int:
    target = example.targets["sop"]
    assert target.positions.tolist() == [0]
    return int(target.labels[0])


@given(windows, keys)
def test_each_pair_is_asked_in_both_orders(window: Window, key: int) -> None:
    ordered, _ = cut_pieces(window.pieces, "sop", CounterRng(key))
    examples = examples_of(SOP, window, key)
    assert len(examples) == 2 * len(ordered)
    for pair, right, wrong in zip(ordered, examples[::2], examples[1::2], strict=True):
        a, b = pair.a.tokens.tolist(), pair.b.tokens.tolist()
        assert (split(right), label_of(right)) == ((a, b), RIGHT)
        assert (split(wrong), label_of(wrong)) == ((b, a), WRONG)
        assert right.document == wrong.document == pair.a.document


@given(windows, keys)
def test_no_example_holds_text_of_two_pieces(window: Window, key: int) -> None:
    text = {piece.document: piece.tokens.tolist() for piece in window.pieces}
    for example in examples_of(SOP, window, key):
        a, b = split(example)
        both = [*a, *b] if label_of(example) == RIGHT else [*b, *a]
        own = text[example.document]
        assert any(own[at : at + len(both)] == both for at in range(len(own)))


@given(windows, keys)
def test_every_text_stands_once_under_each_answer(window: Window, key: int) -> None:
    seen: dict[int, Counter[int]] = {RIGHT: Counter(), WRONG: Counter()}
    for example in examples_of(SOP, window, key):
        a, b = split(example)
        seen[label_of(example)].update([*a, *b])
    assert seen[RIGHT] == seen[WRONG]


@given(sized_windows(), keys)
def test_position_ids_stay_below_w_and_three(drawn: tuple[int, Window], key: int) -> None:
    size, window = drawn
    for example in examples_of(build("sop", window=size), window, key):
        assert example.positions.tolist() == list(range(len(example)))
        assert len(example) <= size + 3
        assert example.visible.all()


def test_one_document_is_enough() -> None:
    piece = make_piece([39, 40, 40, 41, 41, 41], sentences=(0, 1, 3))
    examples = examples_of(SOP, Window(0, 0, (piece,)), 0)
    assert [(split(e), label_of(e)) for e in examples] == [
        (([40, 40], [41, 41, 41]), RIGHT),
        (([41, 41, 41], [40, 40]), WRONG),
    ]
    assert examples[0].segments.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert examples[1].segments.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_without_two_sentences_of_unknown_place_there_is_no_example() -> None:
    two = make_piece([40, 41], sentences=(0, 1))
    cut = make_piece([40, 41, 42], sentences=(0, 1, 2), ends_document=False)
    assert examples_of(SOP, Window(0, 0, (two, cut)), 0) == []
    assert examples_of(SOP, Window(0, 0, ()), 0) == []


def test_every_sentence_start_is_equally_likely_to_be_the_cut() -> None:
    window = Window(0, 0, (make_piece([50] * 13, sentences=(0, 1, 3, 4, 8, 12)),))
    counts = Counter(len(split(examples_of(SOP, window, key)[0])[0]) for key in range(4000))
    assert set(counts) == {2, 3, 7, 11}
    assert_fits(list(counts.values()), np.ones(4))


@given(windows, keys)
def test_examples_depend_on_window_and_key_alone(window: Window, key: int) -> None:
    one, same = (examples_of(SOP, window, key) for _ in range(2))
    assert [e.tokens.tolist() for e in one] == [e.tokens.tolist() for e in same]


def test_other_keys_make_other_examples() -> None:
    window = Window(0, 0, tuple(random_piece(200, 0, document=d) for d in range(4)))
    made = {str([split(e) for e in examples_of(SOP, window, key)]) for key in range(30)}
    assert len(made) == 30


def test_the_cost_is_that_of_the_text_after_the_first_sentence() -> None:
    piece = make_piece([39, 40, 40, 41, 41, 41], sentences=(0, 1, 3))
    examples = examples_of(SOP, Window(0, 0, (piece,)), 0)
    assert SOP.cost(5) == Cost(sum(map(len, examples)), len(examples))


@pytest.mark.parametrize(("pooling", "kind"), [("pair", "pair"), ("cls", "sequence")])
def test_one_head_of_two_named_classes(pooling: str, kind: str) -> None:
    [head] = build("sop", pooling=pooling).heads
    assert (head.name, head.kind, head.classes, head.weight) == ("sop", kind, 2, 1.0)
    assert head.labels[RIGHT] == "ordered"
    assert head.labels[WRONG] == "swapped"


def test_windows_of_one_document_are_taken() -> None:
    Sop(SopConfig(), Context(V, 64, documents=10, tokens=10_000_000))


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.pooling"):
        build("sop", pooling="mean")
