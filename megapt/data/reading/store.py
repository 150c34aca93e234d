"""The shards of one split, opened when they are needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import PrepError
from data_prep.manifest import SplitInfo
from data_prep.shards import Shard
from megapt.config import ReadingConfig
from megapt.data.reading.errors import DamageError, ReadingError, log
from megapt.data.reading.location import Location

_OPEN_SHARDS = 128
"""Shards kept mapped: each takes a file handle, of which a process has 1,024 as a rule."""
_OPENINGS = 10
"""Attempts to open a shard before others have removed it from the cache again."""


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
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self.skipped: dict[int, str] = {}

    def shard(self, number: int) -> Shard | None:
        """Shard `number`, mapped and checked; None if it is left out.

        A shard that cannot be read is left out only if `on_damage` is `skip` and the location
        still answers: a store that is away as a whole is no damage of a shard.

        Raises:
            ReadingError: it cannot be read.
        """
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if number in self.skipped:
            return None
        try:
            self._open[number] = self._opened(number)
        except DamageError as error:
            if self._on_damage == "stop":
                raise DamageError(
                    f"{error}; or set data.reading.on_damage to skip, to go on without its text"
                ) from None
            if not self._location.responds():
                raise ReadingError(
                    f"{error}; and {self._location.where} does not answer, so nothing is skipped"
                ) from None
            log.warning("%s; going on without its text", error)
            self.skipped[number] = str(error)
            return None
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[number]

    def verify(self, number: int) -> None:
        """Compare the checksum of a shard that lies here.

        Raises:
            DamageError: it is missing or damaged.
        """
        self._location.verify(self._infos[number])

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Begin to bring these shards, the one needed first first; see `Location.fetch_ahead`."""
        missing = (n for n in numbers if n not in self._open and n not in self.skipped)
        self._location.fetch_ahead([self._infos[number] for number in missing])

    def skip(self, damage: Mapping[int, str]) -> None:
        """Leave shards out without trying to read them, as the run that is resumed did.

        Args:
            damage: number of a shard -> one line on why.
        """
        self.skipped.update(damage)
        for number in damage:
            self._open.pop(number, None)

    def _opened(self, number: int) -> Shard:
        """A shard that stays readable whatever becomes of its file's name.

        Raises:
            DamageError: it is missing or damaged.
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
                    raise DamageError(str(error)) from None
        raise ReadingError(
            f"{path}: was removed from the cache {_OPENINGS} times before it could be opened; "
            "raise data.reading.cache_bytes, which the processes of this machine share"
        )
