from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import RESERVED, Example, Piece, Window
from megapt.errors import ConfigError
from megapt.objectives import ObjectiveError
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, sized_windows, windows

V = VOCABULARY
PRE, SUF, MID = (V.infilling[name] for name in ("PRE", "SUF", "MID"))
cut_places = st.sampled_from(["token", "word"])


def parts(sequence: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Prefix, middle and suffix of a rearranged text, from the marks alone.

    With the suffix first, prefix and middle are one.
    """
    assert sequence[0] == PRE
    assert sequence.count(PRE) == sequence.count(SUF) == sequence.count(MID) == 1
    suf, mid = sequence.index(SUF), sequence.index(MID)
    return sequence[1:suf], sequence[mid + 1 :], sequence[suf + 1 : mid]


def read(example: Example) -> list[int]:
    """The whole sequence: the input, and the last label."""
    return [*example.tokens.tolist(), *example.targets["tokens"].labels[-1:].tolist()]


def rearranged(piece: Piece, count: int, **settings: Any) -> list[list[int]]:
    """The sequences of a piece under `count` keys, without their [EOS]."""
    objective = build("fim", fim_rate=1.0, **settings)
    window = Window(0, 0, (piece,))
    return [read(examples_of(objective, window, key)[0])[:-1] for key in range(count)]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_golden_layout(spm_rate: float, ends: bool) -> None:
    piece = make_piece([50, 51, 52, 53], document=4, starts_document=False, ends_document=ends)
    objective = build("fim", fim_rate=1.0, spm_rate=spm_rate)
    layouts = set()
    for key in range(200):
        [example] = examples_of(objective, Window(0, 0, (piece,)), key)
        layouts.add(tuple(example.tokens.tolist()))
        labels = example.targets["tokens"].labels.tolist()
        assert labels == [*example.tokens[1:].tolist(), V.eos]
        assert example.targets["tokens"].positions.tolist() == list(range(7))
        assert example.positions.tolist() == list(range(7))
        assert set(example.segments.tolist()) == {0}
        assert not example.visible.any()
        assert example.document == 4
    if spm_rate:
        assert (PRE, SUF, 53, MID, 50, 51, 52) in layouts
    else:
        assert (PRE, 50, SUF, 53, MID, 51, 52) in layouts


@given(sized_windows(), keys, cut_places)
def test_the_parts_make_the_text(drawn: tuple[int, Window], key: int, cut: str) -> None:
    size, window = drawn
    for spm_rate in (0.0, 1.0):
        objective = build("fim", window=size, fim_rate=1.0, spm_rate=spm_rate, cut=cut)
        for example, piece in zip(examples_of(objective, window, key), window.pieces, strict=True):
            sequence = read(example)
            assert sequence.pop() == V.eos
            prefix, middle, suffix = parts(sequence)
            assert [*prefix, *middle, *suffix] == piece.tokens.tolist()
            starts = [*np.flatnonzero(piece.word_starts).tolist(), len(piece.tokens)]
            if cut == "word":
                assert len(prefix) in starts
                assert len(prefix) + len(middle) in starts
            if spm_rate:
                assert not prefix
            assert len(example) <= objective.longest_example(size) == size + RESERVED
            assert example.positions.max() < size + RESERVED


@given(windows, keys)
def test_the_other_texts_are_those_of_arlm(window: Window, key: int) -> None:
    examples = examples_of(build("fim"), window, key)
    plain = {e.document: e for e in examples_of(build("arlm"), window, key)}
    for example in examples:
        if example.tokens[0] != PRE:
            same = plain[example.document]
            assert example.tokens.tolist() == same.tokens.tolist()
            assert (
                example.targets["tokens"].labels.tolist() == same.targets["tokens"].labels.tolist()
            )


def test_the_shares_of_the_orders() -> None:
    objective = build("fim", fim_rate=0.6, spm_rate=0.25)
    pieces = tuple(make_piece(range(40, 60), document=k) for k in range(10))
    kinds = Counter(
        "plain" if e.tokens[0] != PRE else "SPM" if e.tokens[1] == SUF else "PSM"
        for key in range(600)
        for e in examples_of(objective, Window(0, 0, pieces), key)
    )
    # Where one of both cuts stands at 0 there is no prefix, and both orders look the same.
    empty = 1 - (20 / 21) ** 2
    assert_fits(
        [kinds["plain"], kinds["SPM"], kinds["PSM"]],
        [0.4, 0.6 * (0.25 + 0.75 * empty), 0.6 * 0.75 * (1 - empty)],
    )


@pytest.mark.parametrize("cut", ["token", "word"])
def test_both_cuts_are_uniform_and_independent(cut: str) -> None:
    """All pairs of places from 0 to the end, the end included; equal ones make no middle."""
    piece = make_piece([40, 41, 42, 43, 44, 45], words=[0, 1, 4])
    places = [0, 1, 4, 6] if cut == "word" else list(range(7))
    drawn: Counter[tuple[int, ...]] = Counter()
    for sequence in rearranged(piece, 4000, spm_rate=0.0, cut=cut):
        prefix, middle, _ = parts(sequence)
        drawn[len(prefix), len(prefix) + len(middle)] += 1
    expected = Counter(tuple(sorted(pair)) for pair in product(places, repeat=2))
    assert set(drawn) == set(expected)
    kinds = sorted(expected)
    assert_fits([drawn[kind] for kind in kinds], [expected[kind] for kind in kinds])


def test_the_suffix_first_is_cut_alike() -> None:
    piece = make_piece(range(40, 44))
    drawn = Counter(len(parts(s)[2]) for s in rearranged(piece, 4000, spm_rate=1.0))
    # P(the later of two cuts leaves k) = P(both are at most 4 - k) - P(at most 3 - k).
    shares = [((5 - k) ** 2 - (4 - k) ** 2) / 25 for k in range(5)]
    assert_fits([drawn[k] for k in range(5)], shares)


def test_texts_of_a_window_are_cut_independently() -> None:
    pieces = tuple(make_piece([40, 41], document=k) for k in range(2))
    objective = build("fim", fim_rate=1.0, spm_rate=0.0)
    drawn = Counter(
        tuple(e.tokens.tolist().index(SUF) for e in examples_of(objective, Window(0, 0, pieces), k))
        for k in range(4000)
    )
    share = {1: 5, 2: 3, 3: 1}  # of nine pairs of cuts, by the earlier one
    kinds = list(product(share, repeat=2))
    assert_fits([drawn[kind] for kind in kinds], [share[a] * share[b] for a, b in kinds])


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 40])
def test_the_cost(n: int, rate: float) -> None:
    objective = build("fim", fim_rate=rate)
    window = Window(0, 0, (random_piece(n, 1),))
    examples = [examples_of(objective, window, key)[0] for key in range(1000)]
    cost = objective.cost(n)
    assert_mean([len(example) for example in examples], cost.positions)
    assert_mean([len(example.targets["tokens"].labels) for example in examples], cost.targets)


def test_windows_are_rearranged_on_their_own() -> None:
    """Whatever was drawn before: the draws belong to the window."""
    pieces = tuple(random_piece(100, k, document=k) for k in range(10))
    objective, window = build("fim"), Window(0, 0, pieces)

    def noised(number: int) -> tuple[int, ...]:
        examples = examples_of(objective, window, 0, "train", 0, number)
        return tuple(np.concatenate([example.tokens for example in examples]).tolist())

    assert [noised(k) for k in range(9)] == [noised(k) for k in reversed(range(9))][::-1]
    assert len({noised(k) for k in range(200)}) == 200


def test_a_tokenizer_without_the_pieces_is_refused() -> None:
    lacking = V.model_copy(update={"infilling": {"PRE": PRE}})
    with pytest.raises(ConfigError, match=r"no piece \[SUF\], \[MID\]"):
        build("fim", vocabulary=lacking)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([50, 51], [V.bos, 50, 51]),
        ([], [V.bos]),
        ([50, V.mask, 51, 52], [PRE, 50, SUF, 51, 52, MID]),
        ([V.mask, 51], [PRE, SUF, 51, MID]),
        ([50, V.mask], [PRE, 50, SUF, MID]),
    ],
)
def test_a_prompt_is_continued_or_filled_in(text: list[int], expected: list[int]) -> None:
    prompt = build("fim").prompt(np.array(text, dtype=np.int64))
    assert prompt is not None
    assert prompt.tokens.tolist() == expected
    assert prompt.positions.tolist() == list(range(len(expected)))
    assert not prompt.visible.any()


def test_a_prompt_has_one_place_to_fill_in() -> None:
    with pytest.raises(ObjectiveError, match=r"2 \[MASK\]s"):
        build("fim").prompt(np.array([V.mask, 50, V.mask]))


@pytest.mark.parametrize(
    "settings", [{"fim_rate": 1.1}, {"spm_rate": -0.1}, {"cut": "character"}], ids=str
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        build("fim", **settings)


def test_the_settings_without_a_preset_are_those_of_the_preset() -> None:
    assert type(build("fim").config)() == build("fim").config
