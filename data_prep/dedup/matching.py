"""Finding equal keys over all units, a bucket of keys a task.

A bucket is a range of the 64 high bits of a key. Tables are sorted by them, so that a task
reads one contiguous slice of each unit's table, and all tasks together read every byte once.
Every function here is pure: the pairs of all buckets together depend neither on how many
buckets there are nor on how the documents are cut into units.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.settings import NearSettings

Source = Path | NDArray[Any]
"""An array in memory, or a .npy file of which only what is needed is read."""

RECORD_BYTES = 160
"""Memory that a task needs for one record of its bucket, measured and rounded up."""

RUN = 8
"""Up to as many documents with one band key are all compared with each other."""

_PAIRS_AT_A_TIME = 1 << 15


@dataclass(frozen=True)
class UnitArray:
    """An array of one unit of the corpus: a table of keys, or signatures.

    Attributes:
        source: the array or its file.
        first: number of the unit's first document in the whole corpus.
    """

    source: Source
    first: int


def opened(source: Source) -> NDArray[Any]:
    """The array, memory-mapped if it is a file."""
    if isinstance(source, Path):
        array: NDArray[Any] = np.load(source, mmap_mode="r")
        return array
    return source


def plan_buckets(records: int, memory_bytes: int) -> int:
    """Into how many buckets `records` records go so that a task needs about `memory_bytes`."""
    return max(1, -(-records * RECORD_BYTES // memory_bytes))


def merge_tables(tables: Sequence[UnitArray]) -> NDArray[np.void]:
    """One table for neighboring units, so that the tasks of a large corpus open fewer files.

    Args:
        tables: tables of one kind, in order.

    Returns:
        The table of one unit that begins where the first of them does.
    """
    parts = []
    for unit in tables:
        part = np.array(opened(unit.source))
        part["document"] += np.uint32(unit.first - tables[0].first)
        parts.append(part)
    joined = np.concatenate(parts)
    return joined[np.argsort(joined["high"], kind="stable")]


def match_equal(
    tables: Sequence[UnitArray],
    bucket: int,
    buckets: int,
    dropped: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """Documents of one bucket that have equal 128-bit keys.

    Args:
        tables: the `TEXT_KEY` table of every unit, in order.
        bucket: which bucket, from 0.
        buckets: of how many.
        dropped: rising numbers of documents that count as gone, uint64.

    Returns:
        Pairs (first document with a key, a later one with the same), uint64 [E, 2], sorted by
        the later one.
    """
    records = _bucket(tables, bucket, buckets)
    documents, high = _documents(records), np.concatenate([part["high"] for _, part in records])
    low = np.concatenate([part["low"] for _, part in records])
    left = _left(documents, dropped)
    documents, high, low = documents[left], high[left], low[left]
    order = np.lexsort((low, high))
    high, low, documents = high[order], low[order], documents[order]
    begins = np.ones(len(documents), dtype=np.bool_)
    begins[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    runs = np.cumsum(begins) - 1
    firsts = documents[begins][runs]
    return _pairs(firsts[~begins], documents[~begins])


def match_near(
    tables: Sequence[UnitArray],
    signatures: Sequence[UnitArray],
    settings: NearSettings,
    bucket: int,
    buckets: int,
    dropped: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """Documents of one bucket that share a band and `accepted_slots` slots or more.

    Of more than `RUN` documents with one band key, each is compared with the first of them
    and with the one before it only.

    Args:
        tables: the `BAND_KEY` table of every unit, in order.
        signatures: the signatures of every unit, in order, uint16 [D, permutations].
        settings: those the signatures were made with.
        bucket: which bucket, from 0.
        buckets: of how many.
        dropped: rising numbers of documents that count as gone, uint64.

    Returns:
        Pairs (earlier document, later document), uint64 [E, 2], sorted by the later one.
    """
    records = _bucket(tables, bucket, buckets)
    documents, high = _documents(records), np.concatenate([part["high"] for _, part in records])
    left = _left(documents, dropped)
    documents, high = documents[left], high[left]
    order = np.argsort(high, kind="stable")
    candidates = _candidates(high[order], documents[order])
    accepted = np.zeros(len(candidates), dtype=np.bool_)
    for begin in range(0, len(candidates), _PAIRS_AT_A_TIME):
        part = candidates[begin : begin + _PAIRS_AT_A_TIME]
        wanted, places = np.unique(part, return_inverse=True)
        rows = _rows(signatures, wanted, settings.permutations)
        places = places.reshape(part.shape)
        equal = (rows[places[:, 0]] == rows[places[:, 1]]).sum(axis=1)
        accepted[begin : begin + len(part)] = equal >= settings.accepted_slots
    return candidates[accepted]


def _bucket(
    tables: Sequence[UnitArray], bucket: int, buckets: int
) -> list[tuple[int, NDArray[Any]]]:
    """The records of a bucket of every unit with the unit's first document, in order."""
    low, high = (-(-(number << 64) // buckets) for number in (bucket, bucket + 1))
    found = []
    for unit in tables:
        table = opened(unit.source)
        # np.searchsorted would copy the whole column; this looks at twenty records.
        begin = bisect_left(table, low, key=lambda record: int(record["high"]))
        end = bisect_left(table, high, lo=begin, key=lambda record: int(record["high"]))
        found.append((unit.first, np.array(table[begin:end])))
    return found


def _documents(records: list[tuple[int, NDArray[Any]]]) -> NDArray[np.uint64]:
    """The numbers in the whole corpus of the documents of the records, uint64 [N]."""
    return np.concatenate([part["document"] + np.uint64(first) for first, part in records])


def _left(documents: NDArray[np.uint64], dropped: NDArray[np.uint64] | None) -> NDArray[np.bool_]:
    """Which of the documents are not among the dropped ones, bool [N]."""
    if dropped is None or not len(dropped):
        return np.ones(len(documents), dtype=np.bool_)
    places = np.minimum(np.searchsorted(dropped, documents), len(dropped) - 1)
    left: NDArray[np.bool_] = dropped[places] != documents
    return left


def _candidates(high: NDArray[np.uint64], documents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Pairs of documents with equal keys, each pair once; `high` is sorted."""
    equal = high[1:] == high[:-1]
    shared = np.zeros(len(high), dtype=np.bool_)
    shared[1:] = equal
    shared[:-1] |= equal
    high, documents = high[shared], documents[shared]
    begins = np.ones(len(high), dtype=np.bool_)
    begins[1:] = high[1:] != high[:-1]
    runs = np.cumsum(begins) - 1
    firsts = np.flatnonzero(begins)
    small = np.diff(np.append(firsts, len(high)))[runs] <= RUN
    place = np.arange(len(high)) - firsts[runs]
    earlier, later = [], []
    for step in range(1, RUN):
        reached = np.flatnonzero((place >= step) & (small | (step == 1)))
        earlier.append(reached - step)
        later.append(reached)
    reached = np.flatnonzero((place >= 2) & ~small)
    earlier.append(firsts[runs[reached]])
    later.append(reached)
    pairs = _pairs(documents[np.concatenate(earlier)], documents[np.concatenate(later)])
    new = np.ones(len(pairs), dtype=np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new & (pairs[:, 0] < pairs[:, 1])]


def _pairs(earlier: NDArray[np.uint64], later: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Pairs sorted by the later document, then the earlier, uint64 [E, 2]."""
    order = np.lexsort((earlier, later))
    return np.stack([earlier[order], later[order]], axis=1)


def _rows(
    signatures: Sequence[UnitArray], documents: NDArray[np.uint64], permutations: int
) -> NDArray[np.uint16]:
    """The signatures of some documents, given by rising numbers, uint16 [N, permutations]."""
    firsts = np.array([unit.first for unit in signatures], dtype=np.uint64)
    bounds = np.searchsorted(documents, firsts).tolist()
    rows = np.empty((len(documents), permutations), dtype=np.uint16)
    for unit, begin, end in zip(signatures, bounds, [*bounds[1:], len(documents)], strict=True):
        if begin < end:
            rows[begin:end] = opened(unit.source)[documents[begin:end] - np.uint64(unit.first)]
    return rows
