import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_dedup import find_duplicates
from prep_support import chinese_text, english_text

from data_prep.dedup import (
    DedupSettings,
    Kind,
    NearSettings,
    UnitArray,
    band_key_table,
    match_equal,
    match_near,
    plan_buckets,
    resolve,
    text_key_table,
    text_keys,
)
from data_prep.dedup.matching import RUN
from data_prep.dedup.minhash import sketch

BOTH = DedupSettings(exact=True, near=NearSettings())
SMALL = NearSettings(permutations=16, bands=4, rows=2, threshold=0.5)


def cut(total: int, cuts: list[int]) -> list[tuple[int, int]]:
    bounds = [0, *sorted(cuts), total]
    return list(pairwise(bounds))


def in_buckets(match: object, buckets: int) -> set[tuple[int, int]]:
    found = [match(bucket) for bucket in range(buckets)]  # type: ignore[operator]
    for pairs in found:
        assert pairs.dtype == np.uint64
        assert (np.diff(pairs[:, 1].astype(np.int64)) >= 0).all()
    return {(int(a), int(b)) for pairs in found for a, b in pairs}


def test_text_keys() -> None:
    keys = text_keys(["", "好书", "good", "good", "good "])
    assert keys.dtype == np.uint64
    assert len(set(map(tuple, keys.tolist()))) == 4
    assert [f"{part:016x}" for part in text_keys([""])[0].byteswap()] == [
        "cae66941d9efbd40",
        "4e4d88758ea67670",
    ]  # BLAKE2b-128 of nothing
    assert text_keys([]).shape == (0, 2)


@given(
    strings=st.lists(st.sampled_from(["a", "b", "c", "好", "", "d" * 99]), max_size=30),
    data=st.data(),
    buckets=st.integers(1, 5),
)
def test_equal_keys_whatever_the_units_and_buckets(
    strings: list[str], data: st.DataObject, buckets: int
) -> None:
    units = cut(len(strings), data.draw(st.lists(st.integers(0, len(strings)), max_size=4)))
    tables = [UnitArray(text_key_table(text_keys(strings[a:b])), a) for a, b in units]
    found = in_buckets(lambda bucket: match_equal(tables, bucket, buckets), buckets)
    first = {string: number for number, string in reversed(list(enumerate(strings)))}
    expected = {(first[s], number) for number, s in enumerate(strings) if first[s] != number}
    assert found == expected


def test_both_halves_of_a_key_count() -> None:
    keys = np.array([[1, 1], [1, 2], [2, 1], [1, 2]], dtype=np.uint64)
    assert match_equal([UnitArray(text_key_table(keys), 0)], 0, 1).tolist() == [[1, 3]]


def test_only_some_documents_may_have_a_key() -> None:
    table = text_key_table(text_keys(["x", "y", "x"]), np.array([2, 5, 9], dtype=np.uint32))
    assert match_equal([UnitArray(table, 100)], 0, 1).tolist() == [[102, 109]]


def near_by_definition(rows: np.ndarray, settings: NearSettings) -> set[tuple[int, int]]:
    pairs = set()
    for later in range(len(rows)):
        for earlier in range(later):
            equal = rows[earlier] == rows[later]
            used = equal[: settings.bands * settings.rows].reshape(settings.bands, -1)
            if used.all(axis=1).any() and equal.sum() >= settings.accepted_slots:
                pairs.add((earlier, later))
    return pairs


@given(
    seed=st.integers(0, 999), count=st.integers(0, RUN), buckets=st.integers(1, 5), data=st.data()
)
def test_near_pairs_whatever_the_units_and_buckets(
    seed: int, count: int, buckets: int, data: st.DataObject
) -> None:
    rows = np.random.default_rng(seed).integers(0, 2, (count, 16)).astype(np.uint16)
    units = cut(count, data.draw(st.lists(st.integers(0, count), max_size=3)))
    tables = [UnitArray(band_key_table(rows[a:b], SMALL), a) for a, b in units]
    signatures = [UnitArray(rows[a:b], a) for a, b in units]
    dropped = np.array(sorted(data.draw(st.sets(st.integers(0, 9)))), dtype=np.uint64)
    found = in_buckets(
        lambda bucket: match_near(tables, signatures, SMALL, bucket, buckets, dropped),
        buckets,
    )
    expected = near_by_definition(rows, SMALL)
    assert found == {pair for pair in expected if not {*pair} & {*dropped.tolist()}}


def test_documents_without_a_signature_have_no_band_keys() -> None:
    rows = np.full((3, 16), 0xFFFF, dtype=np.uint16)
    rows[1] = 7
    table = band_key_table(rows, SMALL)
    assert table["document"].tolist() == [1] * SMALL.bands
    assert len(set(table["high"].tolist())) == SMALL.bands


@pytest.mark.parametrize(("runs", "size"), [(1, 100_000), (5000, 20)])
def test_many_equal_documents_cost_no_square(runs: int, size: int) -> None:
    rows = np.repeat(np.random.default_rng(0).integers(0, 9999, (runs, 128)), size, axis=0)
    table = band_key_table(rows.astype(np.uint16), NearSettings())
    pairs = match_near(
        [UnitArray(table, 0)], [UnitArray(rows.astype(np.uint16), 0)], NearSettings(), 0, 1
    )
    assert len(pairs) < 2 * runs * size
    result = resolve([pairs], runs * size, Kind.NEAR)
    assert len(result.documents) == runs * (size - 1)
    assert (result.originals == result.documents // size * size).all()


def test_pairs_right_at_the_threshold_are_found_as_often_as_promised() -> None:
    settings, pairs, union = NearSettings(), 1500, 400
    elements = np.random.default_rng(5).integers(0, 1 << 64, (pairs, union), dtype=np.uint64)
    sides = [elements[:, :360], elements[:, 40:]]  # 320 of 400 shared
    rows = np.concatenate(
        [
            sketch(side.reshape(-1), np.arange(pairs + 1) * 360, settings.permutations, 0)
            for side in sides
        ]
    ).astype(np.uint16)
    tables = [UnitArray(band_key_table(rows, settings), 0)]
    found = match_near(tables, [UnitArray(rows, 0)], settings, 0, 1)
    assert (found[:, 1] - found[:, 0] == pairs).all()
    assert len(found) / pairs > settings.found_probability(0.8) - 0.015  # 3 standard errors


def test_buckets_hold_what_memory_allows() -> None:
    assert plan_buckets(0, 1 << 28) == 1
    assert plan_buckets(16 * 10**9, 1 << 28) == 9537


def edited(rng: random.Random, text: str, words: str) -> str:
    """The text with one word in 60 (or one character in 60) replaced."""
    pieces = text.split(" ") if " " in text else list(text)
    for at in rng.sample(range(len(pieces)), max(1, len(pieces) // 60)):
        pieces[at] = rng.choice(words)
    return (" " if " " in text else "").join(pieces)


@pytest.mark.parametrize("make", [english_text, chinese_text])
def test_planted_duplicates_are_found(make: object, tmp_path: Path) -> None:
    rng = random.Random(3)
    originals = [make(rng, 30) for _ in range(120)]  # type: ignore[operator]
    copies = originals[:20]
    near = [edited(rng, text, "新词句XYZ") for text in originals[20:60]]
    texts = [*originals, *copies, *near, "", "", "。", "short"]
    result = find_duplicates(texts, BOTH, cuts=[7, 50, 50, 130], buckets=3, folder=tmp_path)
    assert result.documents.tolist() == [*range(120, 180), 181]
    assert result.originals.tolist() == [*range(60), 180]
    assert result.kinds.tolist() == [Kind.EXACT] * 20 + [Kind.NEAR] * 40 + [Kind.EXACT]


def test_result_does_not_depend_on_units_buckets_or_files(tmp_path: Path) -> None:
    rng = random.Random(4)
    base = [make(rng, 12) for make in (english_text, chinese_text) for _ in range(40)]
    texts = [edited(rng, rng.choice(base), "abc好书") for _ in range(300)] + base[::2]
    rng.shuffle(texts)
    results = [
        find_duplicates(texts, BOTH),
        find_duplicates(texts, BOTH, cuts=range(0, 340, 20), buckets=1),
        find_duplicates(texts, BOTH, cuts=[1, 2, 300], buckets=17, folder=tmp_path),
        find_duplicates(texts, BOTH, cuts=range(0, 340, 7), buckets=3, merged=True),
    ]
    assert 0 < len(results[0].documents) < len(texts)
    for other in results[1:]:
        assert other.documents.tolist() == results[0].documents.tolist()
        assert other.originals.tolist() == results[0].originals.tolist()
        assert other.kinds.tolist() == results[0].kinds.tolist()


def test_nothing_is_dropped_unless_asked() -> None:
    result = find_duplicates(["same", "same"], DedupSettings())
    assert len(result.documents) == 0
