"""The data state in a checkpoint: how far the data was read, and a digest of what was read.

The digest is the sum, modulo 2^128, of BLAKE2b digests of (number in the run, corpus, epoch, index)
over all consumed windows. The number makes it depend on the order, and each rank can compute its
part of the sum. Two runs on any numbers of ranks have equal digests if, and except for collisions
only if, they read the same windows in the same order. The digest does not show skipped text, but
`skipped` does.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from megapt.config.migration import RENAMED
from megapt.errors import ConfigError

WindowId = tuple[int, int, int, int]
"""Number in the run, key of the corpus, epoch, index in the epoch's stream."""

Skipped = Mapping[str, Mapping[int, str]]
"""Name of a corpus -> number of a shard -> reason why it is skipped."""

_MODULUS = 1 << 128


def digest_windows(ids: Iterable[WindowId]) -> int:
    """Return the sum of the digests of some windows, modulo 2^128."""
    total = 0
    for id_ in ids:
        digest = hashlib.blake2b(struct.pack("<4Q", *id_), digest_size=16).digest()
        total += int.from_bytes(digest, "little")
    return total % _MODULUS


def add_digests(*digests: int) -> int:
    """Return the digest of the union of disjoint sets of windows."""
    return sum(digests) % _MODULUS


def join_skipped(parts: Iterable[Skipped]) -> dict[str, dict[int, str]]:
    """Return the shards that are skipped in any of the parts."""
    joined: dict[str, dict[int, str]] = {}
    for part in parts:
        for name, shards in part.items():
            joined.setdefault(name, {}).update(shards)
    return {name: dict(sorted(joined[name].items())) for name in sorted(joined)}


class _Saved(BaseModel):
    """The JSON of a `LoaderState`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    order: dict[str, Any]
    windows: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    skipped: dict[
        str, dict[Annotated[int, Field(ge=0, strict=False)], str]
    ]  # JSON keys are strings


@dataclass(frozen=True)
class LoaderState:
    """Position of a run in its data, independent of the number of ranks and workers."""

    order: Mapping[str, Any]
    """Everything that the order of the windows depends on; see `Stream.identity`."""
    windows: int = 0
    """Number of windows that all ranks have consumed, the first ones of the sequence."""
    digest: int = 0
    """Digest of these windows; see the module."""
    skipped: Skipped = field(default_factory=dict)
    """Shards that were skipped; a resumed run skips them too."""

    @property
    def skipped_shards(self) -> int:
        """Number of skipped shards."""
        return sum(map(len, self.skipped.values()))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; the digest as 32 hexadecimal digits."""
        return {**asdict(self), "digest": f"{self.digest:032x}"}

    @classmethod
    def from_json(cls, values: Any) -> LoaderState:
        """Return the state from the JSON values of `to_json`.

        Raises:
            ValueError: if `values` are not such values.
        """
        saved = _Saved.model_validate(values)
        order = {
            RENAMED.get(f"data.{key}", key).removeprefix("data."): value
            for key, value in saved.order.items()
        }
        return cls(order, saved.windows, int(saved.digest, 16), saved.skipped)

    def check(self, order: Mapping[str, Any]) -> None:
        """Refuse to continue with data in another order.

        Raises:
            ConfigError: if the order differs; the message names the setting.
        """
        for name in sorted({*self.order, *order}):
            if self.order.get(name) != order.get(name):
                raise ConfigError(
                    f"cannot resume: the run read data with {name} = {self.order.get(name)}, "
                    f"not {order.get(name)}"
                )
