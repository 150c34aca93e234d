"""Decide which documents to drop, given the pairs of duplicates.

Documents are processed in order. A document is dropped if it matches an earlier document that is
kept. So each dropped document matches a kept one, no two kept documents form a pair, and of a
chain A ~ B ~ C in which A and C do not match, only B is dropped.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.matching import Source, opened

PAIR_BYTES = 128
"""Memory per pair during processing, in bytes; measured and rounded up."""


class Kind(IntEnum):
    """How a document duplicates another one."""

    EXACT = 0
    NEAR = 1


@dataclass(frozen=True)
class Duplicates:
    """The documents to drop."""

    documents: NDArray[np.uint64]
    """Their numbers, ascending, uint64 [K]."""
    originals: NDArray[np.uint64]
    """The kept document that each one duplicates, uint64 [K]."""
    kinds: NDArray[np.uint8]
    """The `Kind` of each one, uint8 [K]."""


def resolve(
    pairs: Sequence[Source], documents: int, kind: Kind, memory_bytes: int = 1 << 28
) -> Duplicates:
    """Decide which documents to drop.

    It needs one byte for each document of the corpus, plus `memory_bytes`.

    Args:
        pairs: the results of all match tasks, in any order, each uint64 [E, 2] of (earlier
            document, later document), sorted by the later one. A pair may occur repeatedly.
        documents: number of documents in the corpus.
        kind: kind of all these pairs.
        memory_bytes: approximate memory for the pairs that are processed at a time.

    Returns:
        The documents to drop, each with the first kept document that it matches.
    """
    total = sum(len(opened(source)) for source in pairs)
    windows = max(1, -(-total * PAIR_BYTES // memory_bytes))
    kept = bytearray(b"\1") * documents
    dropped: list[NDArray[np.uint64]] = [np.empty((0, 2), dtype=np.uint64)]
    for window in range(windows):
        begin, end = (documents * number // windows for number in (window, window + 1))
        rows: list[tuple[int, int]] = []
        # Whether the earlier document is kept is already decided here, by the order of the pairs.
        for earlier, later in _window(pairs, begin, end):
            if kept[later] and kept[earlier]:
                kept[later] = 0
                rows.append((later, earlier))
        dropped.append(np.array(rows, dtype=np.uint64).reshape(-1, 2))
    table = np.concatenate(dropped)
    kinds = np.full(len(table), kind, dtype=np.uint8)
    return Duplicates(table[:, 0].copy(), table[:, 1].copy(), kinds)


def combine(exact: Duplicates, near: Duplicates) -> Duplicates:
    """Combine the exact duplicates with the near-duplicates among the other documents.

    If a document is dropped as a near-duplicate, its exact copies become near-duplicates of the
    document that is kept instead.
    """
    originals, kinds = exact.originals.copy(), exact.kinds.copy()
    if len(near.documents):
        places = np.searchsorted(near.documents, originals)
        places = np.minimum(places, len(near.documents) - 1)
        moved = near.documents[places] == originals
        originals[moved] = near.originals[places[moved]]
        kinds[moved] = near.kinds[places[moved]]
    documents = np.concatenate([exact.documents, near.documents])
    order = np.argsort(documents, kind="stable")
    return Duplicates(
        documents[order],
        np.concatenate([originals, near.originals])[order],
        np.concatenate([kinds, near.kinds])[order],
    )


def _window(pairs: Sequence[Source], begin: int, end: int) -> "zip[tuple[int, int]]":
    """Return the pairs whose later document is in a range, sorted by later, earlier document."""
    parts = [np.empty((0, 2), dtype=np.uint64)]
    for source in pairs:
        table = opened(source)
        first = bisect_left(table, begin, key=lambda pair: int(pair[1]))
        last = bisect_left(table, end, lo=first, key=lambda pair: int(pair[1]))
        parts.append(np.array(table[first:last]))
    rows = np.concatenate(parts)
    order = np.lexsort((rows[:, 0], rows[:, 1]))
    return zip(rows[order, 0].tolist(), rows[order, 1].tolist(), strict=True)
