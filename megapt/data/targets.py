"""The targets of each head in a batch, in narrow types and as the model reads them."""

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
    """The targets of one head in a batch."""

    places: Tensor
    """Positions in the batch, int64 [t]."""
    labels: Tensor
    """Token ids or classes, int64 [t]."""
    size: float
    """Denominator of the mean loss: the number of targets, unless examples give another one."""
    weights: Tensor | None = None
    """Factor of each loss, float32 [t]; None: 1."""
    draws: Tensor | None = None
    """Uniform draws for heads that sample, float32 [t]."""
    windows: int = 0
    """Number of windows with targets for it, or for another head of its member of a mixture."""

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
    """Positions in the batch, uint16 or uint32 [t]."""
    labels: Unsigned
    """Token ids or classes, uint16 or uint32 [t]."""
    size: float
    weights: NDArray[np.float32] | None = None
    draws: NDArray[np.float32] | None = None
    windows: int = 0

    def widen(self) -> HeadTargets:
        """Return the targets in the types that the model reads."""
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

    A copy from pageable memory to a GPU would make the host wait for all queued work. A copy from
    pinned memory is queued too, and torch keeps the memory until it is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def widened(values: NDArray[Any]) -> Tensor:
    """Return `values` as int64."""
    return torch.from_numpy(values.astype(np.int64))


def narrow(values: Ints, *types: type[np.unsignedinteger[Any]]) -> Unsigned:
    """Return `values` in the first of `types` that holds them all.

    Values of the first type, such as most token ids of shards, are neither read nor copied.

    Raises:
        ValueError: if none of them does, as for negative values.
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
    """Concatenate the parts, of which there may be none."""
    return np.concatenate(parts) if parts else _NONE


def _joined_floats(
    targets: Sequence[Targets], field: Literal["weights", "draws"]
) -> NDArray[np.float32] | None:
    """Concatenate a field of all targets, with 1 where it is None; return None if all are None."""
    parts = [getattr(target, field) for target in targets]
    if all(part is None for part in parts):
        return None
    whole = [
        np.ones(len(target.labels)) if part is None else part
        for target, part in zip(targets, parts, strict=True)
    ]
    return np.concatenate(whole).astype(np.float32)


def join_targets(starts: Ints, targets: Sequence[Targets], windows: int) -> PackedTargets:
    """Join the targets of one head.

    Args:
        starts: first position in the batch of each example with targets, int64 [examples].
        targets: the targets of these examples.
        windows: see `HeadTargets.windows`.
    """
    sizes = [len(target.labels) for target in targets]
    places = joined([target.positions for target in targets]) + np.repeat(starts, sizes)
    return PackedTargets(
        places=narrow(places, np.uint16, np.uint32),
        labels=narrow(joined([target.labels for target in targets]), np.uint16, np.uint32),
        size=sum(len(t.labels) if t.size is None else t.size for t in targets),
        weights=_joined_floats(targets, "weights"),
        draws=_joined_floats(targets, "draws"),
        windows=windows,
    )
