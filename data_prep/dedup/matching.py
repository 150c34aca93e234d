"""Find equal keys over all units, with one task per bucket of keys.

A bucket is a range of the high 64 bits of a key. Tables are sorted by these bits, so a task reads
one contiguous slice of each unit's table, and all tasks together read every byte once. All
functions here are pure: the pairs of all buckets together depend neither on the number of buckets
nor on the division of the documents into units.
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
"""An array in memory, or a .npy file, of which only the needed part is read."""

RECORD_BYTES = 160
"""Memory of a task per record of its bucket, in bytes; measured and rounded up."""

RUN = 8
"""At most this many documents with the same band key are all compared with each other."""

_PAIRS_AT_A_TIME = 1 << 15


@dataclass(frozen=True)
class UnitArray:
    """An array of one unit of the corpus: a table of keys, or signatures."""

    source: Source
    """The array or its file."""
    first: int
    """Number, in the whole corpus, of the unit's first document."""


def opened(source: Source) -> NDArray[Any]:
    """Return the array, memory-mapped if it is a file."""
    if isinstance(source, Path):
        array: NDArray[Any] = np.load(source, mmap_mode="r")
        return array
    return source


def plan_buckets(records: int, memory_bytes: int) -> int:
    """Return the number of buckets with which a task needs about `memory_bytes`."""
    return max(1, -(-records * RECORD_BYTES // memory_bytes))


def merge_tables(tables: Sequence[UnitArray]) -> NDArray[np.void]:
    """Merge the tables of neighboring units, so that tasks of a large corpus open fewer files.

    Args:
        tables: tables of one kind, in order.

    Returns:
        One table, whose document numbers count from the first document of the first unit.
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
    """Find the documents of one bucket that have equal 128-bit keys.

    Args:
        tables: the `TEXT_KEY` table of every unit, in order.
        bucket: index of the bucket, from 0.
        buckets: number of buckets.
        dropped: ascending numbers of documents to ignore, uint64.

    Returns:
        Pairs (first document with a key, later document with the same key), uint64 [E, 2], sorted
        by the later document.
    """
    records = _bucket(tables, bucket, buckets)
    documents, high = _documents(records), np.concatenate([part["high"] for _, part in records])
    low = np.concatenate([part["low"] for _, part in records])
    remaining = _remaining(documents, dropped)
    documents, high, low = documents[remaining], high[remaining], low[remaining]
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
    """Find the documents of one bucket that share a band and at least `accepted_slots` slots.

    If more than `RUN` documents have the same band key, each one is compared only with the first
    of them and with the previous one.

    Args:
        tables: the `BAND_KEY` table of every unit, in order.
        signatures: the signatures of every unit, in order, uint16 [D, permutations].
        settings: the settings of the signatures.
        bucket: index of the bucket, from 0.
        buckets: number of buckets.
        dropped: ascending numbers of documents to ignore, uint64.

    Returns:
        Pairs (earlier document, later document), uint64 [E, 2], sorted by the later document.
    """
    records = _bucket(tables, bucket, buckets)
    documents, high = _documents(records), np.concatenate([part["high"] for _, part in records])
    remaining = _remaining(documents, dropped)
    documents, high = documents[remaining], high[remaining]
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
    """Return, for every unit in order, its first document and its records of the bucket."""
    low, high = (-(-(number << 64) // buckets) for number in (bucket, bucket + 1))
    found = []
    for unit in tables:
        table = opened(unit.source)
        # np.searchsorted would copy the whole column; this reads about twenty records.
        begin = bisect_left(table, low, key=lambda record: int(record["high"]))
        end = bisect_left(table, high, lo=begin, key=lambda record: int(record["high"]))
        found.append((unit.first, np.array(table[begin:end])))
    return found


def _documents(records: list[tuple[int, NDArray[Any]]]) -> NDArray[np.uint64]:
    """Return the document numbers of the records in the whole corpus, uint64 [N]."""
    return np.concatenate([part["document"] + np.uint64(first) for first, part in records])


def _remaining(
    documents: NDArray[np.uint64], dropped: NDArray[np.uint64] | None
) -> NDArray[np.bool_]:
    """Return which documents are not among the dropped ones, bool [N]."""
    if dropped is None or not len(dropped):
        return np.ones(len(documents), dtype=np.bool_)
    places = np.minimum(np.searchsorted(dropped, documents), len(dropped) - 1)
    remaining: NDArray[np.bool_] = dropped[places] != documents
    return remaining


def _candidates(high: NDArray[np.uint64], documents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the pairs of documents with equal keys, each pair once; `high` is sorted."""
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
    """Return the pairs sorted by the later document, then by the earlier, uint64 [E, 2]."""
    order = np.lexsort((earlier, later))
    return np.stack([earlier[order], later[order]], axis=1)


def _rows(
    signatures: Sequence[UnitArray], documents: NDArray[np.uint64], permutations: int
) -> NDArray[np.uint16]:
    """Return the signatures of documents with ascending numbers, uint16 [N, permutations]."""
    firsts = np.array([unit.first for unit in signatures], dtype=np.uint64)
    bounds = np.searchsorted(documents, firsts).tolist()
    rows = np.empty((len(documents), permutations), dtype=np.uint16)
    for unit, begin, end in zip(signatures, bounds, [*bounds[1:], len(documents)], strict=True):
        if begin < end:
            rows[begin:end] = opened(unit.source)[documents[begin:end] - np.uint64(unit.first)]
    return rows
