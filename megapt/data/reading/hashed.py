"""The files of a corpus that this process or related processes have hashed."""

from __future__ import annotations

import mmap
from collections.abc import Iterable


class HashedFiles:
    """A set of file names, shared with the processes that are forked after its creation.

    The workers of a loader read the same shards. With one byte per file in shared memory, a file
    that one worker has hashed is not hashed again by the others. There is no lock: at worst, two
    workers hash the same file at the same time.

    Args:
        files: the names that the set can hold.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._places = {name: place for place, name in enumerate(sorted(files))}
        self._marks = mmap.mmap(-1, max(1, len(self._places)))

    def __contains__(self, file: str) -> bool:
        place = self._places.get(file)
        return place is not None and self._marks[place] == 1

    def add(self, file: str) -> None:
        """Add a file; ignore one that is not part of the corpus."""
        place = self._places.get(file)
        if place is not None:
            self._marks[place] = 1
