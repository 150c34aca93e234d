"""The shards of one split, opened when they are needed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import PrepError
from data_prep.manifest import SplitInfo
from data_prep.shards import Shard
from megapt.config import ReadingConfig
from megapt.data.reading.errors import FILE_FAULTS, DamagedFile, fault_of, log
from megapt.data.reading.location import Location
from megapt.errors import ConfigError, UnavailableError, is_unavailable

_OPEN_SHARDS = 128
"""Shards that all stores of a process together keep mapped for later use.

Each takes a file handle; a process usually may have 1,024. Chunks in memory keep their shards
mapped in addition to these.
"""
_OPEN_ATTEMPTS = 10
"""Attempts to open a shard that other processes may evict from the cache in the meantime."""

_recent: OrderedDict[Shard, None] = OrderedDict()
"""Shards that are kept mapped, the least recently used first."""


def _keep_mapped(shard: Shard) -> None:
    """Make a shard the most recently used one, and drop those beyond `_OPEN_SHARDS`."""
    if shard not in _recent:
        # An evicted file takes disk space for as long as it is mapped.
        for evicted in [other for other in _recent if not os.path.exists(other.path)]:
            del _recent[evicted]
        _recent[shard] = None
        while len(_recent) > _OPEN_SHARDS:
            _recent.popitem(last=False)
    _recent.move_to_end(shard)


class ShardStore:
    """Opens the shards of a split and checks them.

    No token of a shard is read before its size has been compared with the manifest and, except
    with `verify: size`, its checksum too.

    Args:
        location: where the corpus is.
        split: the split's part of the manifest.
        table: blocks of all its shards, int64 [blocks, 3]: byte offset, documents, tokens.
        reading: which checks are made, and whether a corrupt shard is skipped.
    """

    def __init__(
        self,
        location: Location,
        split: SplitInfo,
        table: NDArray[np.int64],
        reading: ReadingConfig,
    ) -> None:
        self._location = location
        self._infos = split.shards
        self._table = table
        self._starts = np.cumsum([0, *(info.blocks for info in split.shards)])
        self._on_damage = reading.on_damage
        # Shards that are still in use, so that none is mapped twice.
        self._open: WeakValueDictionary[int, Shard] = WeakValueDictionary()
        self.skipped: dict[int, str] = {}
        """Number of a skipped shard -> one line with the reason."""

    def shard(self, number: int) -> Shard | None:
        """Return shard `number`, mapped and checked; None if it is skipped.

        A shard that cannot be read is skipped only if `on_damage` is `skip` and the location
        still answers: if the whole storage is unavailable, no shard is at fault.

        Raises:
            DamagedError: if it is missing or corrupt.
            UnavailableError: if it or the whole location is out of reach.
            ConfigError: if it cannot be kept on this machine, or this process is short of file
                handles or memory.
        """
        if number in self.skipped:
            return None
        try:
            shard = self._open.get(number)
            if shard is None:
                shard = self._open_shard(number)
        except FILE_FAULTS as error:
            skips = self._on_damage == "skip"
            # Without `skip`, an unreachable file is an `UnavailableError` in any case.
            if (skips or isinstance(error, DamagedFile)) and not self._location.responds():
                consequence = ", so nothing is skipped" if skips else ""
                raise UnavailableError(
                    f"{error}; and {self._location.where} does not answer{consequence}"
                ) from None
            if not skips:
                raise type(error)(
                    f"{error}; or set data.reading.on_damage to skip, to continue without its text"
                ) from None
            log.warning("%s; continuing without its text", error)
            self.skipped[number] = str(error)
            return None
        self._open[number] = shard
        _keep_mapped(shard)
        return shard

    def verify(self, number: int) -> None:
        """Check the checksum of a shard in a local folder.

        Raises:
            DamagedFile: if it is missing or corrupt.
            UnreachableFile: if its storage is unavailable.
            ConfigError: if this process is short of file handles or memory.
        """
        self._location.verify(self._infos[number])

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Begin to fetch these shards, in this order; see `Location.fetch_ahead`."""
        missing = (n for n in numbers if n not in self._open and n not in self.skipped)
        self._location.fetch_ahead(self, [self._infos[number] for number in missing])

    def skip(self, damage: Mapping[int, str]) -> None:
        """Skip shards without trying to read them, because the resumed run skipped them.

        Args:
            damage: number of a shard -> one line with the reason.
        """
        self.skipped.update(damage)

    def _open_shard(self, number: int) -> Shard:
        """Map a shard, which stays readable even if its file is removed.

        Raises:
            MegaptError: see `Location.path`.
        """
        info = self._infos[number]
        table = self._table[self._starts[number] : self._starts[number + 1]]
        for _ in range(_OPEN_ATTEMPTS):
            path = self._location.path(info)
            try:
                shard = Shard(path.parent, info, table)
                shard.tokens(0)  # maps the file
                return shard
            except (PrepError, OSError) as error:
                if os.path.exists(path) or is_unavailable(error):
                    raise fault_of(path, error) from None
        raise ConfigError(
            f"{path}: was removed from the cache {_OPEN_ATTEMPTS} times before it could be opened; "
            "raise data.reading.cache_bytes, which the processes of this machine share"
        )
