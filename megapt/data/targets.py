"""What each head of a batch is asked, packed and as the model reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megapt.data.example import Ints, Targets

Unsigned = NDArray[np.unsignedinteger[Any]]
_NONE: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class HeadTargets:
    """What one head is asked in a batch."""

    places: Tensor
    """int64 [t]."""
    labels: Tensor
    """int64 [t]."""
    size: float
    """What the losses are a mean over; the number of targets, unless examples say otherwise."""
    weights: Tensor | None = None
    """Factor of each loss, float32 [t]; None: 1."""
    draws: Tensor | None = None
    """Uniform draws for heads that sample, float32 [t]."""
    windows: int = 0
    """Windows that ask it something, or another head of its member of a mixture."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> HeadTargets:
        """Return a copy on `device`."""
        return replace(
            self,
            places=moved(self.places, device),
            labels=moved(self.labels, device),
            weights=None if self.weights is None else moved(self.weights, device),
            draws=None if self.draws is None else moved(self.draws, device),
        )


@dataclass(frozen=True)
class PackedTargets:
    """`HeadTargets` in the narrowest types that hold them, as numpy arrays."""

    places: Unsigned
    """uint16 or uint32 [t]."""
    labels: Unsigned
    """uint16 or uint32 [t]."""
    size: float
    weights: NDArray[np.float32] | None = None
    draws: NDArray[np.float32] | None = None
    windows: int = 0

    def widen(self) -> HeadTargets:
        """Return the targets that the model reads."""
        return HeadTargets(
            places=widened(self.places),
            labels=widened(self.labels),
            size=self.size,
            weights=None if self.weights is None else torch.from_numpy(self.weights),
            draws=None if self.draws is None else torch.from_numpy(self.draws),
            windows=self.windows,
        )


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`.

    From ordinary memory a GPU would copy only after all that it is busy with, and the host would
    wait. From pinned memory it copies when its turn comes, and torch keeps the memory until then.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def widened(values: NDArray[Any]) -> Tensor:
    """Return `values` as int64."""
    return torch.from_numpy(values.astype(np.int64))


def narrow(values: Ints, *types: type[np.unsignedinteger[Any]]) -> Unsigned:
    """Return `values` in the first of `types` that holds them all.

    What is of the first type, as token ids of a shard are as a rule, is neither read nor copied.

    Raises:
        ValueError: if none does; no type holds a negative number.
    """
    if values.dtype == types[0]:
        return values.astype(types[0], copy=False)
    if values.min(initial=0) >= 0:
        largest = int(values.max(initial=0))
        for kind in types:
            if largest <= np.iinfo(kind).max:
                return values.astype(kind, copy=False)
    raise ValueError(f"{values.min()} to {values.max()} do not fit {types[-1].__name__}")


def joined(parts: Sequence[Ints]) -> Ints:
    """Return the parts end to end, in the narrowest type that holds theirs; there may be none."""
    return np.concatenate(parts) if parts else _NONE


def _joined_floats(
    found: Sequence[Targets], field: Literal["weights", "draws"]
) -> NDArray[np.float32] | None:
    """Return a field of all targets end to end, 1 where some lack it; None if all do."""
    parts = [getattr(target, field) for target in found]
    if all(part is None for part in parts):
        return None
    whole = [
        np.ones(len(target.labels)) if part is None else part
        for target, part in zip(found, parts, strict=True)
    ]
    return np.concatenate(whole).astype(np.float32)


def join_targets(starts: Ints, found: Sequence[Targets], windows: int) -> PackedTargets:
    """Join the targets of one head.

    Args:
        starts: place of the first position of each example that has some, int64 [examples].
        found: what they ask.
        windows: that those examples are of.
    """
    sizes = [len(target.labels) for target in found]
    places = joined([target.positions for target in found]) + np.repeat(starts, sizes)
    return PackedTargets(
        places=narrow(places, np.uint16, np.uint32),
        labels=narrow(joined([target.labels for target in found]), np.uint16, np.uint32),
        size=sum(len(t.labels) if t.size is None else t.size for t in found),
        weights=_joined_floats(found, "weights"),
        draws=_joined_floats(found, "draws"),
        windows=windows,
    )
