"""The state of the data in a checkpoint, and the digest that proves what was read."""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import LoaderState
from megapt.data.state import WindowId, add_digests, digest_windows, join_skipped
from megapt.errors import ConfigError

ids = st.tuples(*[st.integers(0, 2**64 - 1)] * 4)
sequences = st.lists(ids, max_size=12)


def test_the_digest_is_the_sum_of_blake2b_over_four_words_a_window() -> None:
    windows: list[WindowId] = [(0, 2**64 - 1, 3, 4), (1, 2**64 - 1, 3, 5)]
    total = 0
    for window in windows:
        words = b"".join(number.to_bytes(8, "little") for number in window)
        total += int.from_bytes(hashlib.blake2b(words, digest_size=16).digest(), "little")
    assert digest_windows(windows) == total % 2**128
    assert digest_windows([]) == 0


def test_the_digest_is_the_same_in_every_version() -> None:
    """This number may only change with the format of the data state."""
    digest = digest_windows((n, 7, n // 3, n % 3) for n in range(1000))
    assert f"{digest:032x}" == "28efb3bff55783e55720e842a9ef2cd9"


@given(sequences, st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_ranks_digest_their_shares_apart(windows: list[WindowId], owners: list[int]) -> None:
    shares: list[list[WindowId]] = [[] for _ in range(4)]
    for window, rank in zip(windows, owners, strict=False):
        shares[rank].append(window)
    parts = [digest_windows(share) for share in shares]
    assert add_digests(*parts) == reduce(add_digests, parts, 0) == digest_windows(windows)
    assert 0 <= digest_windows(windows) < 2**128


@given(st.lists(ids, min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_digest_depends_on_the_order(windows: list[WindowId], random: Any) -> None:
    order = list(windows)
    random.shuffle(order)
    one, other = (
        digest_windows((number, *window[1:]) for number, window in enumerate(sequence))
        for sequence in (windows, order)
    )
    same_text = [window[1:] for window in windows] == [window[1:] for window in order]
    assert (one == other) == same_text


@given(ids, st.integers(0, 3))
def test_every_part_of_an_id_counts(window: WindowId, part: int) -> None:
    changed = list(window)
    changed[part] = (changed[part] + 1) % 2**64
    assert digest_windows([window]) != digest_windows([tuple(changed)])  # type: ignore[list-item]


ORDER = {"seed": 3, "window": 64, "fingerprint": {"en": "ab", "zh": "cd"}, "stages": [[0, [0.5]]]}
SKIPPED = {"en": {2: "two", 11: "eleven"}, "zh": {0: "nought"}}


def test_the_state_survives_json() -> None:
    state = LoaderState(ORDER, 1 << 40, (1 << 127) + 5, SKIPPED)
    values = json.loads(json.dumps(state.to_json()))
    assert LoaderState.from_json(values) == state
    assert values["digest"] == "80000000000000000000000000000005"


@pytest.mark.parametrize(
    "change",
    [
        {"order": []},
        {"windows": -1},
        {"windows": "1"},
        {"digest": "zz"},
        {"digest": "0" * 31},
        {"digest": 5},
        {"skipped": {"en": {"-1": "before all"}}},
        {"skipped": {"en": {"2": 2}}},
        {"steps": 3},
    ],
)
def test_what_is_no_state_is_refused(change: dict[str, Any]) -> None:
    values = json.loads(json.dumps(LoaderState(ORDER, 3, 5, SKIPPED).to_json()))
    with pytest.raises(ValueError, match=next(iter(change))):
        LoaderState.from_json({**values, **change})
    for name in values:
        with pytest.raises(ValueError, match=name):
            LoaderState.from_json({key: value for key, value in values.items() if key != name})


def test_a_state_without_anything_read_has_a_digest_of_nought() -> None:
    values = json.loads(json.dumps(LoaderState(ORDER).to_json()))
    assert values["digest"] == "0" * 32
    assert LoaderState.from_json(values) == LoaderState(ORDER)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 4), ("window", 65), ("fingerprint", {"en": "ab"}), ("stages", [[0, [0.25]]])],
)
def test_what_differs_is_named_with_both_values(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        LoaderState(ORDER).check({**ORDER, name: value})
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert f"{name} = {ORDER[name]}" in text
    assert str(value) in text


@pytest.mark.parametrize(("mine", "other"), [(ORDER, {}), ({}, ORDER)])
def test_a_part_that_only_one_side_has_differs(mine: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fingerprint"):
        LoaderState(mine).check(other)


def test_the_same_order_is_accepted_after_json() -> None:
    LoaderState.from_json(json.loads(json.dumps(LoaderState(ORDER).to_json()))).check(ORDER)


def test_shards_left_out_anywhere_are_left_out_everywhere() -> None:
    joined = join_skipped([{"zh": {0: "nought"}}, {}, {"en": {11: "eleven"}}, {"en": {2: "two"}}])
    assert joined == SKIPPED
    assert [list(joined), list(joined["en"])] == [["en", "zh"], [2, 11]]
    assert join_skipped([]) == {}
