from __future__ import annotations

import numpy as np
import pytest

from megapt.data import Piece, Window, make_example
from megapt.data.example import concatenate
from tests.windows import make_piece

widths = pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])


@widths
def test_ids_and_texts_are_laid_in_the_type_of_the_texts(dtype: type[np.integer]) -> None:
    text = np.array([40, 41], dtype=dtype)
    laid = concatenate(4, text, 5, text[:0], text[1:], 6)
    assert laid.tolist() == [4, 40, 41, 5, 41, 6]
    assert laid.dtype == dtype
    laid[1] = 0
    assert text.tolist() == [40, 41], "a copy"


def test_an_id_that_the_texts_cannot_hold_is_an_error() -> None:
    with pytest.raises(OverflowError):
        concatenate(70_000, np.array([40], dtype=np.uint16))


@pytest.mark.parametrize(
    ("attention", "prefix", "shown"), [("causal", 0, 0), ("bidirectional", 0, 4), ("prefix", 3, 3)]
)
def test_attention_says_which_keys_all_may_see(attention: str, prefix: int, shown: int) -> None:
    example = make_example([40, 41, 42, 43], attention, {}, prefix=prefix)
    assert example.visible.tolist() == [True] * shown + [False] * (4 - shown)


@widths
def test_an_example_has_the_usual_defaults_and_keeps_the_type_of_its_tokens(
    dtype: type[np.integer],
) -> None:
    example = make_example(np.array([40, 41], dtype=dtype), "causal", {})
    assert example.tokens.dtype == dtype
    assert (example.positions.tolist(), example.segments.tolist()) == ([0, 1], [0, 0])
    assert (example.targets, example.document, len(example)) == ({}, -1, 2)


def test_a_window_counts_its_text() -> None:
    pieces: tuple[Piece, ...] = (make_piece([40, 41]), make_piece([50]))
    assert Window(0, 0, pieces).raw_tokens == 3
    assert Window(0, 0, ()).raw_tokens == 0
