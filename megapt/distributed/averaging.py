"""An exponential moving average of the weights, sharded like the optimizer's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megapt.distributed.master_weights import gather, master_weights, scatter, update_module


def decay_after(updates: int, decay: float) -> float:
    """Return the decay of the average at an update.

    It rises to `decay`, so that the influence of the first weights vanishes quickly:
    min(decay, (1 + updates) / (10 + updates)), as in TensorFlow's ExponentialMovingAverage.

    Args:
        updates: number of updates before this one.
        decay: the run's decay.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """The average of the weights after each update.

    Each rank averages the float32 weights that its optimizer updates. At any ZeRO stage, the
    average takes as much memory as these weights.

    Args:
        engine: DeepSpeed's engine; the average starts from its weights.
        decay: decay of the average per update.
    """

    def __init__(self, engine: Any, decay: float) -> None:
        self._engine = engine
        self._decay = decay
        self.restart()

    def restart(self) -> None:
        """Start from the current weights."""
        self._parts = [part.detach().clone() for part in master_weights(self._engine)]

    @torch.no_grad()
    def add(self) -> None:
        """Add the weights after an update to the average."""
        # The engine keeps these counts in its checkpoints.
        updates = self._engine.global_steps - self._engine.skipped_steps
        kept = decay_after(updates - 1, self._decay)
        torch._foreach_lerp_(self._parts, master_weights(self._engine), 1.0 - kept)

    @torch.no_grad()
    def _swap(self) -> None:
        for average, weights in zip(self._parts, master_weights(self._engine), strict=True):
            before = weights.clone()
            weights.copy_(average)
            average.copy_(before)

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        """Swap the average with the optimizer's float32 weights inside the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the average as the weights inside the context. All ranks must enter and leave."""
        with self._swapped():
            update_module(self._engine)
            yield
        # Not in a `finally`: other ranks may not have failed and would not join the collectives.
        update_module(self._engine)

    def state(self, keep: bool) -> dict[str, Tensor]:
        """Return the full average, float32, on the CPU. All ranks must call it.

        Args:
            keep: whether this rank needs it; the others get an empty dictionary.
        """
        with self._swapped():
            return gather(self._engine, keep)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load an average that `state` returned, on any number of ranks, at any ZeRO stage."""
        with self._swapped():
            scatter(self._engine, weights)
