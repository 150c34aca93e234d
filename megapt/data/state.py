"""What a checkpoint keeps of the data: how far it was read, and the proof of what was read.

The proof is the sum, modulo 2^128, of BLAKE2b digests of (number in the run, corpus, epoch, index)
of every window consumed. The number makes it depend on the order, and a sum can be formed by
ranks apart; so two runs on any numbers of ranks read the same windows in the same order if, and but
for chance only if, their sums are equal. Text that was skipped is not seen in it, but in `skipped`.
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
"""Name of a corpus -> shard -> why it is left out."""

_MODULUS = 1 << 128


def digest_windows(ids: Iterable[WindowId]) -> int:
    """Return the sum of the digests of some windows, modulo 2^128."""
    total = 0
    for id_ in ids:
        digest = hashlib.blake2b(struct.pack("<4Q", *id_), digest_size=16).digest()
        total += int.from_bytes(digest, "little")
    return total % _MODULUS


def add_digests(*digests: int) -> int:
    """Return the digest of windows that were digested apart."""
    return sum(digests) % _MODULUS


def join_skipped(parts: Iterable[Skipped]) -> dict[str, dict[int, str]]:
    """Return the shards that are left out in any of the parts."""
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
    skipped: dict[str, dict[Annotated[int, Field(ge=0, strict=False)], str]]  # JSON keys are text


@dataclass(frozen=True)
class LoaderState:
    """Where a run stands in its data. It does not depend on the number of ranks or workers."""

    order: Mapping[str, Any]
    """What the order of the windows depends on; see `WindowStream.identity`."""
    windows: int = 0
    """Windows consumed by all ranks: the first ones of the sequence."""
    digest: int = 0
    """Of these windows; see above."""
    skipped: Skipped = field(default_factory=dict)
    """Shards that were left out, and stay so."""

    @property
    def skipped_shards(self) -> int:
        """How many shards are left out."""
        return sum(map(len, self.skipped.values()))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; the digest as 32 hexadecimal digits."""
        return {**asdict(self), "digest": f"{self.digest:032x}"}

    @classmethod
    def from_json(cls, values: Any) -> LoaderState:
        """Return the state that `to_json` gave.

        Raises:
            ValueError: if it is nothing that `to_json` gives.
        """
        saved = _Saved.model_validate(values)
        order = {
            RENAMED.get(f"data.{key}", key).removeprefix("data."): value
            for key, value in saved.order.items()
        }
        return cls(order, saved.windows, int(saved.digest, 16), saved.skipped)

    def check(self, order: Mapping[str, Any]) -> None:
        """Refuse to go on with data in another order.

        Raises:
            ConfigError: naming what differs.
        """
        for name in sorted({*self.order, *order}):
            if self.order.get(name) != order.get(name):
                raise ConfigError(
                    f"cannot resume: the run read data with {name} = {self.order.get(name)}, "
                    f"not {order.get(name)}"
                )
