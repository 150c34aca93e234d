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
from megapt.errors import ConfigError, UnavailableError

_OPEN_SHARDS = 128
"""Shards that all stores of a process keep mapped for when they are asked for again.

Each takes a file handle, of which a process has 1,024 as a rule. Chunks in memory keep theirs
mapped beyond this number, as long as they live.
"""
_OPENINGS = 10
"""Attempts to open a shard before others have removed it from the cache again."""

_recent: OrderedDict[Shard, None] = OrderedDict()
"""The shards that are kept mapped, the least recently used first."""


def _keep_mapped(shard: Shard) -> None:
    """Make a shard the most recently used one, and let go of those beyond the bound."""
    if shard not in _recent:
        # The bytes of a file that was removed from the cache stay on the disk while it is mapped.
        for gone in [other for other in _recent if not os.path.exists(other.path)]:
            del _recent[gone]
        _recent[shard] = None
        while len(_recent) > _OPEN_SHARDS:
            _recent.popitem(last=False)
    _recent.move_to_end(shard)


class ShardStore:
    """Hands out the shards of a split that are sound.

    No token of a shard is handed out before its size and, but for `verify: size`, its checksum
    have been compared with the manifest.

    Args:
        location: where the corpus is.
        split: the split's part of the manifest.
        table: blocks of all its shards, int64 [blocks, 3]: byte offset, documents, tokens.
        reading: what is checked, and what follows from damage.

    Attributes:
        skipped: number of a shard -> one line on why it is left out.
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
        # Whoever holds a shard keeps it here, so that none is mapped twice.
        self._open: WeakValueDictionary[int, Shard] = WeakValueDictionary()
        self.skipped: dict[int, str] = {}

    def shard(self, number: int) -> Shard | None:
        """Shard `number`, mapped and checked; None if it is left out.

        A shard that cannot be read is left out only if `on_damage` is `skip` and the location
        still answers: a store that is away as a whole is no damage of a shard.

        Raises:
            DamagedError: it is missing or damaged.
            UnavailableError: it is out of reach, or all of the location is.
            ConfigError: it cannot be kept on this machine, or this process is short of files or
                memory.
        """
        if number in self.skipped:
            return None
        try:
            shard = self._open.get(number)
            if shard is None:
                shard = self._opened(number)
        except FILE_FAULTS as error:
            skips = self._on_damage == "skip"
            # What is out of reach may come back, whatever becomes of the rest.
            if (skips or isinstance(error, DamagedFile)) and not self._location.responds():
                so = ", so nothing is skipped" if skips else ""
                raise UnavailableError(
                    f"{error}; and {self._location.where} does not answer{so}"
                ) from None
            if not skips:
                raise type(error)(
                    f"{error}; or set data.reading.on_damage to skip, to go on without its text"
                ) from None
            log.warning("%s; going on without its text", error)
            self.skipped[number] = str(error)
            return None
        self._open[number] = shard
        _keep_mapped(shard)
        return shard

    def verify(self, number: int) -> None:
        """Compare the checksum of a shard that lies here.

        Raises:
            DamagedFile: it is missing or damaged.
            UnreachableFile: its storage is away.
            ConfigError: this process is short of files or memory.
        """
        self._location.verify(self._infos[number])

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Begin to bring these shards, the one needed first first; see `Location.fetch_ahead`."""
        missing = (n for n in numbers if n not in self._open and n not in self.skipped)
        self._location.fetch_ahead(self, [self._infos[number] for number in missing])

    def skip(self, damage: Mapping[int, str]) -> None:
        """Leave shards out without trying to read them, as the run that is resumed did.

        Args:
            damage: number of a shard -> one line on why.
        """
        self.skipped.update(damage)

    def _opened(self, number: int) -> Shard:
        """A shard that stays readable whatever becomes of its file's name.

        Raises:
            MegaptError: as of `Location.path`.
        """
        info = self._infos[number]
        table = self._table[self._starts[number] : self._starts[number + 1]]
        for _ in range(_OPENINGS):
            path = self._location.path(info)
            try:
                shard = Shard(path.parent, info, table)
                shard.tokens(0)  # makes the map
                return shard
            except (PrepError, OSError) as error:
                if path.exists():
                    raise fault_of(path, error) from None
        raise ConfigError(
            f"{path}: was removed from the cache {_OPENINGS} times before it could be opened; "
            "raise data.reading.cache_bytes, which the processes of this machine share"
        )
