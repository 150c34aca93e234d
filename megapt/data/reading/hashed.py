"""Which files of a corpus have been hashed by this process or its relatives."""

from __future__ import annotations

import mmap
from collections.abc import Iterable


class HashedFiles:
    """A set of file names that processes share which are forked after it was made.

    The workers of a loader read the same shards. One byte for each file, in memory that forked
    processes share, saves each of them from hashing what another one has hashed. Two that are at
    it at the same moment both do so, which is all that can happen without a lock.

    Args:
        files: the names that can be in the set.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._places = {name: place for place, name in enumerate(sorted(files))}
        self._marks = mmap.mmap(-1, max(1, len(self._places)))

    def __contains__(self, file: str) -> bool:
        place = self._places.get(file)
        return place is not None and self._marks[place] == 1

    def add(self, file: str) -> None:
        """Put a file in; one that is not of the corpus is not remembered."""
        place = self._places.get(file)
        if place is not None:
            self._marks[place] = 1
