"""One update: forward and backward passes, the check of the loss, the optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from megapt.data import derive_key
from megapt.data.budget import Spent
from megapt.distributed.engine import Engine
from megapt.evaluation.losses import Scores, factors
from megapt.model import training_flops
from megapt.monitoring.throughput import Stopwatch
from megapt.optim.schedule import rate_factor
from megapt.resilience.guard import Guard, Reaction, Verdict
from megapt.resilience.watchdog import Watchdog
from megapt.training.parts import RunParts
from megapt.training.steps import StepData


@dataclass(frozen=True)
class StepResult:
    """Result of one step."""

    scores: Scores
    numbers: dict[str, float]
    """Learning rate, gradient norm and packing efficiency, by name in the record."""
    spent: Spent
    """Amounts spent on all budget axes except `wall_clock`."""
    computed: float
    """Seconds of the forward passes of this rank."""
    applied: bool
    """Whether the update was applied to the weights."""
    reaction: Reaction
    """What the guard asks for."""


class Updater:
    """Computes the updates of a run.

    Args:
        engine: engine that holds the model.
        parts: parts of the run.
        guard: decides whether an update is skipped or rolled back.
        watchdog: receives the progress of this rank.
        before: called with the step once its gradients are computed.
        after: called with the step, and whether its update was applied.
    """

    def __init__(
        self,
        engine: Engine,
        parts: RunParts,
        guard: Guard,
        watchdog: Watchdog,
        before: Callable[[int], None],
        after: Callable[[int, bool], None],
    ) -> None:
        self._engine = engine
        self._config = parts.config
        self._heads = parts.objective.heads
        self._vocabulary = parts.objective.vocabulary.size
        self._ranks = parts.ranks
        self._guard = guard
        self._watchdog = watchdog
        self._before, self._after = before, after
        faults = parts.config.faults
        self._judges_first = faults.spike_threshold > 0 and faults.on_spike != "record"
        self._stopwatch = Stopwatch(parts.ranks.device)

    def update(self, step: int, data: StepData, share: float) -> StepResult:
        """Compute one update, and skip it if its loss or its gradient is not acceptable.

        Args:
            step: number of the step, from 1.
            data: data of this rank.
            share: share of the budget that is spent before this step.

        Raises:
            TrainingError: if too many updates were skipped.
        """
        scores, loss = self._pass(step, data)

        def total_loss() -> float | None:
            has_targets = any(data.totals.sizes)  # A step may have no target on any rank.
            return self._ranks.sum([float(loss)])[0] if has_targets else None

        self._watchdog.beat(step, "update")
        self._before(step)
        rate = self._config.optimizer.lr * rate_factor(self._config.schedule, share)
        # Reading the loss makes the host wait for the device. After the update it has waited
        # anyway, and an update whose loss is not finite is skipped because of its gradient.
        judged = total_loss() if self._judges_first else None
        skip = self._guard.judge(judged) is Verdict.SKIP
        update = self._engine.step(rate, skip)
        judged = judged if self._judges_first else total_loss()
        self._after(step, update.applied)
        counts = data.counts
        flops = training_flops(self._config.model, self._heads, counts, self._vocabulary)
        packing = counts.positions / max(counts.slots, 1)
        return StepResult(
            scores,
            {"learning_rate": rate, "gradient_norm": update.norm, "packing_efficiency": packing},
            Spent(counts.raw_tokens, counts.positions, counts.targets, flops),
            self._stopwatch.read(),
            update.applied,
            self._guard.seen(step, judged, update),
        )

    def _pass(self, step: int, data: StepData) -> tuple[Scores, torch.Tensor]:
        """Do all forward and backward passes; return scores and this rank's part of the loss."""
        of_part = factors(self._heads, data.totals)
        scores = Scores(self._heads)
        loss = torch.zeros((), dtype=torch.float64, device=self._ranks.device)
        for i, batch in enumerate(data.micro_batches):
            self._watchdog.beat(step, "forward")
            # torch draws the dropout masks; they are keyed by (seed, first window of the
            # micro-batch) and by the slice of positions.
            slices = [self._ranks.sequence_rank] if self._ranks.sequence_world > 1 else []
            key = derive_key(self._config.seed, "dropout", batch.key, *slices)
            torch.manual_seed(key >> 1)
            with self._stopwatch.running():
                output = self._engine(batch.to(self._ranks.device), of_part)
            self._watchdog.beat(step, "backward")
            self._engine.backward(output.loss, last=i == len(data.micro_batches) - 1)
            scores.add(output.parts, batch)
            loss += output.loss.detach()
        return scores, loss
