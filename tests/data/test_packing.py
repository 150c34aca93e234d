from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import make_example
from megapt.data.packing import Rows, first_fit, pack_into_rows

LENGTH = 20
lengths = st.lists(st.integers(1, LENGTH), max_size=40)
openings = st.integers(1, 6)


@given(lengths, openings)
def test_rows_hold_every_example_once_and_nothing_overlaps(lengths: list[int], open: int) -> None:
    rows, starts = first_fit(lengths, LENGTH, open)
    assert rows.dtype == starts.dtype == np.int64
    assert len(rows) == len(starts) == len(lengths)
    for row in range(int(rows.max(initial=-1)) + 1):
        inside = np.flatnonzero(rows == row)
        # End to end from the first place on, in order.
        ends = np.cumsum(np.array(lengths)[inside])
        assert starts[inside].tolist() == [0, *ends[:-1].tolist()]
        assert ends[-1] <= LENGTH


@given(lengths, openings)
def test_an_example_is_in_the_first_open_row_where_it_fits(lengths: list[int], open: int) -> None:
    """Straight from the definition: of all rows so far, open are the last that are not full."""
    rows, _ = first_fit(lengths, LENGTH, open)
    taken: list[int] = []
    closed: set[int] = set()
    for length, row in zip(lengths, rows.tolist(), strict=True):
        unfilled = [r for r, used in enumerate(taken) if used < LENGTH and r not in closed]
        fitting = [r for r in unfilled if taken[r] + length <= LENGTH]
        assert row == (fitting[0] if fitting else len(taken))
        if not fitting:
            taken.append(0)
        taken[row] += length
        unfilled = [r for r, used in enumerate(taken) if used < LENGTH and r not in closed]
        closed.update(unfilled[:-open])


@given(lengths, openings, st.integers(0, 40))
def test_a_prefix_is_packed_whatever_follows(lengths: list[int], open: int, cut: int) -> None:
    whole, part = first_fit(lengths, LENGTH, open), first_fit(lengths[:cut], LENGTH, open)
    for all_of_it, first_of_it in zip(whole, part, strict=True):
        assert all_of_it[:cut].tolist() == first_of_it.tolist()


def test_with_one_open_row_examples_stay_in_order() -> None:
    rows, starts = first_fit([12, 9, 8, 5, 3], LENGTH, 1)
    assert rows.tolist() == [0, 1, 1, 2, 2]
    assert starts.tolist() == [0, 0, 9, 0, 5]


def test_more_open_rows_fill_gaps() -> None:
    rows, starts = first_fit([12, 9, 8, 5, 3], LENGTH, 2)
    assert rows.tolist() == [0, 1, 0, 1, 1]
    assert starts.tolist() == [0, 0, 12, 9, 14]


def test_full_rows_do_not_count_as_open_ones() -> None:
    assert first_fit([15, 20, 20, 5], LENGTH, 1)[0].tolist() == [0, 1, 2, 0]
    assert first_fit([15, 16, 20, 5], LENGTH, 1)[0].tolist() == [0, 1, 2, 3]


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="example 1 takes 23 positions, 3 more than the 20 of a"):
        first_fit([4, 23], LENGTH, 1)


def test_no_open_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 open row, not 0"):
        first_fit([4], LENGTH, 0)


def test_packing_is_dense_on_documents_of_usual_lengths() -> None:
    """Log-normal lengths of median 298 and mean 494, cut at the length of a row."""
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(np.log(298), np.sqrt(2 * np.log(494 / 298)), 20_000)
    lengths = np.clip(drawn.astype(np.int64), 1, 2048)
    shares = []
    for open_rows in (1, 8, 64):
        rows, _ = first_fit(lengths.tolist(), 2048, open_rows)
        shares.append(float(lengths.sum() / (2048 * (rows.max() + 1))))
    assert shares == sorted(shares)
    assert 0.8 < shares[0] < 0.9
    assert shares[1] > 0.98
    assert shares[2] > 0.99


@given(lengths, openings, st.integers(0, 5), st.booleans())
def test_rows_are_filled_up(lengths: list[int], open: int, count: int, both: bool) -> None:
    examples = [make_example([7] * n, "causal", {}) for n in lengths]
    laid = pack_into_rows(examples, Rows(LENGTH, count, open), pad=3, bidirectional=both)
    fillers = [example for example in laid if not any(example is mine for mine in examples)]
    assert len(laid) - len(fillers) == len(examples)
    for example in fillers:
        assert set(example.tokens.tolist()) == {3}
        assert set(example.visible.tolist()) == {both}
        assert not example.positions.any()
        assert not example.segments.any()
        assert not example.targets
    ends = np.cumsum([len(example) for example in laid])
    rows, starts = first_fit(lengths, LENGTH, open)
    total = max(count, int(rows.max(initial=0)) + 1) * LENGTH
    assert ends.max(initial=0) == total
    # Every row ends where an example does, and each example lies where first fit puts it.
    assert set(range(LENGTH, total + 1, LENGTH)) <= set(ends.tolist())
    places = {id(e): int(end) - len(e) for e, end in zip(laid, ends, strict=True)}
    assert [places[id(e)] for e in examples] == (LENGTH * rows + starts).tolist()
