"""The order of windows: a bijection in every epoch, computed for any number at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import WindowOrder

SHARDS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=9)
"""Tokens of each block of each shard."""


def make_order(shards: list[list[int]], **changes: Any) -> WindowOrder:
    usual = {"window": 8, "shuffle_buffer_shards": 2, "shuffle_buffer_blocks": 3, "lanes": 4}
    return WindowOrder(
        np.array([sum(blocks) for blocks in shards]),
        lambda shard: np.array(shards[shard]),
        (changes.pop("seed", 1), "fingerprint", "train"),
        **{**usual, **changes},
    )


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[list[int]], WindowOrder]:
    shards = draw(SHARDS)
    settings = {
        "seed": draw(st.integers(0, 9)),
        "window": draw(st.integers(1, 50)),
        "shuffle_buffer_shards": draw(st.integers(1, 10)),
        "shuffle_buffer_blocks": draw(st.integers(1, 10)),
        "lanes": draw(st.integers(1, 12)),
    }
    return shards, make_order(shards, **settings)


@given(orders(), st.integers(0, 3))
def test_an_epoch_holds_every_window_once(made: tuple[Any, WindowOrder], epoch: int) -> None:
    _, order = made
    numbers = range(epoch * order.count, (epoch + 1) * order.count)
    found = [order.locate(number) for number in numbers]
    assert {found_epoch for found_epoch, _ in found} == {epoch}
    assert sorted(index for _, index in found) == list(range(order.count))


@given(orders(), st.integers(0, 2))
def test_the_stream_of_an_epoch_holds_every_block_once(
    made: tuple[list[list[int]], WindowOrder], epoch: int
) -> None:
    shards, order = made
    seen: list[tuple[int, int]] = []
    token = 0
    while token < order.tokens:
        plan = order.chunk(epoch, token)
        assert plan.start == token
        sizes = [shards[shard][block] for shard, block in plan.blocks.tolist()]
        assert plan.stop - plan.start == sum(sizes)
        allowed = set(order.span_shards(epoch, plan.span).tolist())
        assert {shard for shard, _ in plan.blocks.tolist()} <= allowed
        assert order.chunk(epoch, plan.stop - 1).start == plan.start
        seen += map(tuple, plan.blocks.tolist())
        token = plan.stop
    expected = [(s, b) for s, blocks in enumerate(shards) for b in range(len(blocks))]
    assert sorted(seen) == expected


@given(orders(), st.randoms(use_true_random=False))
def test_any_number_is_located_without_those_before(
    made: tuple[list[list[int]], WindowOrder], random: Any
) -> None:
    _, walking = made
    numbers = list(range(2 * walking.count))
    walked = {number: walking.locate(number) for number in numbers}
    random.shuffle(numbers)
    assert {number: walking.locate(number) for number in numbers} == walked


@given(orders(), st.integers(0, 2))
def test_each_lane_walks_a_run_of_its_own(made: tuple[Any, WindowOrder], epoch: int) -> None:
    _, order = made
    runs: dict[int, list[int]] = {}
    for number in range(epoch * order.count, (epoch + 1) * order.count):
        runs.setdefault(number % order.lanes, []).append(order.locate(number)[1])
    for run in runs.values():
        assert sorted(run) == list(range(min(run), max(run) + 1))
    assert max(map(len, runs.values())) - min(map(len, runs.values())) <= 1
    firsts = [min(runs[lane]) for lane in sorted(runs)]
    assert firsts == sorted(firsts)


@given(orders())
def test_a_lane_goes_from_chunk_to_chunk_in_order(made: tuple[Any, WindowOrder]) -> None:
    _, order = made
    for lane in range(min(order.lanes, order.count)):
        starts = [
            order.chunk(0, order.locate(number)[1] * order.window).start
            for number in range(lane, order.count, order.lanes)
        ]
        assert starts == sorted(starts)


BIG = [[100 + shard + block for block in range(6)] for shard in range(20)]


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"shuffle_buffer_shards": 5}, {"shuffle_buffer_blocks": 2}, {"lanes": 8}],
)
def test_every_setting_changes_the_order(change: dict[str, int]) -> None:
    usual, changed = make_order(BIG), make_order(BIG, **change)

    def texts(order: WindowOrder) -> list[Any]:
        places = [order.locate(number)[1] * order.window for number in range(order.count)]
        return [(place - (c := order.chunk(0, place)).start, c.blocks.tolist()) for place in places]

    assert usual.count == changed.count
    assert texts(usual) != texts(changed)


def test_epochs_are_shuffled_anew() -> None:
    order = make_order(BIG)
    epochs = [[order.locate(e * order.count + n)[1] for n in range(order.count)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    blocks = [order.chunk(epoch, 0).blocks.tolist() for epoch in range(3)]
    assert blocks[0] != blocks[1] != blocks[2] != blocks[0]


def test_a_batch_comes_from_all_over_the_corpus() -> None:
    """With L lanes the windows of a batch are L places apart."""
    order = make_order(BIG, lanes=8)
    for first in range(0, order.count - 8, 8):
        places = sorted(order.locate(number)[1] for number in range(first, first + 8))
        assert min(np.diff(places)) > order.count / 8 / 3


def test_the_order_is_the_same_in_every_version() -> None:
    """These numbers may only change with the format of the data state."""
    order = make_order(BIG, lanes=3)
    found = [order.locate(number) for number in (0, 1, 2, 3, 1000, 10**6, 10**12)]
    assert order.count == 1680
    assert found == [
        (0, 29),
        (0, 569),
        (0, 1153),
        (0, 1),
        (0, 890),
        (595, 685),
        (595238095, 710),
    ]
    assert order.chunk(7, 5000).blocks.tolist() == [[18, 1], [18, 4], [18, 2]]


@pytest.mark.parametrize("token", [-1, 10**9])
def test_a_token_outside_the_stream_is_refused(token: int) -> None:
    with pytest.raises(IndexError, match="epoch 0 has tokens 0 to"):
        make_order(BIG).chunk(0, token)


def test_a_far_seek_plans_the_spans_it_needs_alone() -> None:
    asked: list[int] = []

    def block_tokens(shard: int) -> Any:
        asked.append(shard)
        return np.full(100, 10)

    order = WindowOrder(
        np.full(5000, 1000),
        block_tokens,
        (0,),
        window=16,
        shuffle_buffer_shards=4,
        shuffle_buffer_blocks=8,
        lanes=2,
    )
    order.locate(10**9)
    order.locate(10**9 + 1)
    assert len(set(asked)) == 8
