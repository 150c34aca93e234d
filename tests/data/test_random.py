from __future__ import annotations

from itertools import islice, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, derive_key
from tests.chance import assert_fits
from tests.splitmix import PlainRng, key_of, splitmix64

parts = st.lists(st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=8)), max_size=5)


def test_no_parts_give_the_published_stream_of_seed_0() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert CounterRng().bits(3).tolist() == published


def test_one_part_gives_the_first_published_draw_of_that_seed() -> None:
    assert derive_key(0) == 0xE220A8397B1DCDAF
    assert derive_key(1234567) == 6457827717110365317


def test_the_oracle_gives_the_published_stream_of_seed_1234567() -> None:
    assert list(islice(splitmix64(1234567), 3)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(parts)
def test_keys_and_draws_are_those_of_splitmix64(parts: list[int | str]) -> None:
    assert derive_key(*parts) == key_of(*parts)
    plain = PlainRng(*parts)
    assert CounterRng(*parts).bits(20).tolist() == [plain.bits() for _ in range(20)]


@given(parts)
def test_uniforms_integers_and_permutations_are_those_of_the_oracle(parts: list[int | str]) -> None:
    ours, plain = CounterRng(*parts), PlainRng(*parts)
    assert ours.uniform(5).tolist() == [plain.uniform() for _ in range(5)]
    assert ours.integers(-3, 40, 5).tolist() == [plain.integer(-3, 40) for _ in range(5)]
    assert ours.permutation(9).tolist() == plain.permutation(9)
    assert ours.integer(0, 1000) == plain.integer(0, 1000)
    assert [ours.chance(0.3) for _ in range(5)] == [plain.uniform() < 0.3 for _ in range(5)]


sizes = st.lists(st.one_of(st.integers(0, 30), st.integers(1000, 5000)), min_size=1, max_size=6)


@given(parts, sizes)
def test_draws_do_not_depend_on_how_many_are_asked_at_once(
    parts: list[int | str], sizes: list[int]
) -> None:
    """Also over the ends of the blocks that they are made in."""
    rng = CounterRng(*parts)
    apart = np.concatenate([rng.bits(size) for size in sizes])
    assert apart.tolist() == CounterRng(*parts).bits(sum(sizes)).tolist()


def test_a_caller_may_change_what_was_drawn() -> None:
    rng = CounterRng(1)
    rng.bits(5)[:] = 0
    assert rng.bits(5).tolist() == CounterRng(1).bits(10)[5:].tolist()


def test_text_enters_a_key_by_its_blake2b_digest() -> None:
    # printf mlm | b2sum -l 64
    digest = bytes.fromhex("65ce7c3f170eeb53")
    assert derive_key("mlm") == derive_key(int.from_bytes(digest, "little"))


def test_distinct_keys_give_distinct_streams() -> None:
    grid = [
        (seed, epoch, window, name)
        for seed in range(8)
        for epoch in range(8)
        for window in range(50)
        for name in ("arlm", "mlm")
    ]
    assert len({derive_key(*parts) for parts in grid}) == len(grid)
    first = {int(CounterRng(*parts).bits(1)[0]) for parts in grid}
    assert len(first) == len(grid)


def test_the_order_and_the_number_of_parts_matter() -> None:
    keys = [derive_key(*order) for order in permutations([0, 1, "a"])]
    keys += [derive_key(0), derive_key(0, 0), derive_key(0, 0, 0), derive_key("")]
    assert len(set(keys)) == len(keys)


def test_neighboring_keys_are_uncorrelated() -> None:
    draws = np.array([CounterRng(3, 0, window, "mlm").uniform(200) for window in range(200)])
    for other in (np.roll(draws, 1, axis=0), np.roll(draws, 1, axis=1)):
        correlation = np.corrcoef(draws.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(draws.size)


def test_uniforms_are_uniform_within_one_stream() -> None:
    draws = CounterRng("uniform").uniform(200_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert_fits(np.bincount((draws * 256).astype(int), minlength=256), np.ones(256))


def test_first_draws_are_uniform_over_keys() -> None:
    draws = [float(CounterRng(0, 0, window, "mlm").uniform(1)[0]) for window in range(20_000)]
    assert_fits(np.bincount((np.array(draws) * 64).astype(int), minlength=64), np.ones(64))


def test_every_bit_is_set_half_of_the_time() -> None:
    bits = CounterRng("bits").bits(40_000)
    for place in range(64):
        share = ((bits >> np.uint64(place)) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(len(bits))


def test_integers_are_uniform_and_stay_in_their_range() -> None:
    draws = CounterRng("integers").integers(-5, 32, 100_000)
    assert draws.dtype == np.int64
    assert (draws.min(), draws.max()) == (-5, 31)
    assert_fits(np.bincount(draws + 5), np.ones(37))


@pytest.mark.parametrize("width", [1, 3, 2**31 - 1, 2**52 + 1])
def test_the_largest_uniform_stays_below_the_upper_end(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = CounterRng()
    monkeypatch.setattr(rng, "bits", lambda n: np.full(n, 2**64 - 1, dtype=np.uint64))
    assert rng.integer(0, width) == rng.integers(0, width, 1)[0] == width - 1


@given(parts, st.integers(0, 200))
def test_permutations_hold_every_number_once(parts: list[int | str], n: int) -> None:
    assert sorted(CounterRng(*parts).permutation(n)) == list(range(n))


def test_equal_draws_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = CounterRng()
    draws = np.repeat(np.array([3, 1, 2], dtype=np.uint64), 20)
    monkeypatch.setattr(rng, "bits", lambda n: draws[:n])
    expected = [*range(20, 40), *range(40, 60), *range(20)]
    assert rng.permutation(60).tolist() == expected


def test_all_orders_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for window in range(12_000):
        order = tuple(CounterRng(window, "order").permutation(4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert_fits(list(counts.values()), np.ones(24))
