"""An exponential moving average of the weights, kept where the weights are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megapt.distributed.masters import gather, masters, publish, scatter


def decay_after(updates: int, decay: float) -> float:
    """Return the share of the old average that an update leaves.

    It rises to `decay`, so that the first weights are soon forgotten:
    min(decay, (1 + updates) / (10 + updates)), as TensorFlow's ExponentialMovingAverage has it.

    Args:
        updates: done before this one.
        decay: of the whole run.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """The average of the weights after each update.

    Each rank averages the float32 weights that its optimizer updates, so at any ZeRO stage it costs
    a rank as much memory as those.

    Args:
        engine: DeepSpeed's; the average begins with its weights.
        decay: of the average, an update.
    """

    def __init__(self, engine: Any, decay: float) -> None:
        self._engine = engine
        self._decay = decay
        self.restart()

    def restart(self) -> None:
        """Begin with the weights as they are."""
        self._parts = [part.detach().clone() for part in masters(self._engine)]

    @torch.no_grad()
    def add(self) -> None:
        """Take in the weights after an update."""
        # The engine keeps these counts in its checkpoints.
        updates = self._engine.global_steps - self._engine.skipped_steps
        kept = decay_after(updates - 1, self._decay)
        torch._foreach_lerp_(self._parts, masters(self._engine), 1.0 - kept)

    @torch.no_grad()
    def _exchange(self) -> None:
        for mine, weights in zip(self._parts, masters(self._engine), strict=True):
            before = weights.clone()
            weights.copy_(mine)
            mine.copy_(before)

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        """Inside, the average is where the optimizer has its float32 weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the average is where the weights are. All ranks must enter and leave."""
        with self._exchanged():
            publish(self._engine)
            yield
        # Not after an error: another rank may not have failed, so nothing is done together.
        publish(self._engine)

    def state(self, keep: bool) -> dict[str, Tensor]:
        """Return the whole average, float32, on the CPU. All ranks must call it.

        Args:
            keep: whether this rank needs it; the others get an empty dictionary.
        """
        with self._exchanged():
            return gather(self._engine, keep)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from an average that `state` has returned, on any ranks, at any stage."""
        with self._exchanged():
            scatter(self._engine, weights)
