from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from megapt.data import Window
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, make_piece, windows

V = VOCABULARY
ARLM = build("arlm")


@pytest.mark.parametrize(
    ("starts", "ends", "inputs", "labels"),
    [
        (True, True, [V.bos, 50, 51, 52], [50, 51, 52, V.eos]),
        (True, False, [V.bos, 50, 51], [50, 51, 52]),
        (False, True, [50, 51, 52], [51, 52, V.eos]),
        (False, False, [50, 51], [51, 52]),
    ],
)
def test_bos_and_eos_stand_at_the_edges_of_the_document_alone(
    starts: bool, ends: bool, inputs: list[int], labels: list[int]
) -> None:
    piece = make_piece([50, 51, 52], starts_document=starts, ends_document=ends, document=7)
    [example] = examples_of(ARLM, Window(0, 0, (piece,)), 0)
    assert example.tokens.tolist() == inputs
    assert example.targets["tokens"].labels.tolist() == labels
    assert example.targets["tokens"].positions.tolist() == list(range(len(labels)))
    assert example.positions.tolist() == list(range(len(inputs)))
    assert example.document == 7


@given(windows)
def test_every_position_predicts_its_successor(window: Window) -> None:
    for example in examples_of(ARLM, window, 0):
        target = example.targets["tokens"]
        assert target.positions.tolist() == list(range(len(example)))
        assert target.labels[:-1].tolist() == example.tokens[1:].tolist()
        assert not example.visible.any()


@given(windows)
def test_an_epoch_predicts_every_token_but_the_first_of_a_continuation(window: Window) -> None:
    examples = examples_of(ARLM, window, 0)
    labels = [label for e in examples for label in e.targets["tokens"].labels.tolist()]
    expected = [
        token
        for piece in window.pieces
        for token in [
            *piece.tokens[0 if piece.starts_document else 1 :].tolist(),
            *([V.eos] if piece.ends_document else []),
        ]
    ]
    assert labels == expected


def test_a_lone_token_from_the_middle_of_a_document_predicts_nothing() -> None:
    piece = make_piece([50], starts_document=False, ends_document=False)
    assert examples_of(ARLM, Window(0, 0, (piece,)), 0) == []


def test_nothing_is_drawn() -> None:
    window = Window(0, 0, (make_piece([50, 51]),))
    first, second = (examples_of(ARLM, window, key)[0] for key in (1, 2))
    assert first.tokens.tolist() == second.tokens.tolist()


def test_prompts_begin_with_bos() -> None:
    prompt = ARLM.prompt(np.array([50, 51]))
    assert prompt is not None
    assert prompt.tokens.tolist() == [V.bos, 50, 51]
    assert not prompt.visible.any()


def test_one_token_head() -> None:
    assert [(head.name, head.kind, head.weight) for head in ARLM.heads] == [("tokens", "token", 1)]
