"""Hooks: the work at steps and validations in addition to the updates themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from megapt.config import is_due
from megapt.distributed.engine import Engine
from megapt.errors import TrainingError
from megapt.evaluation.validation import evaluate
from megapt.monitoring.groups import GroupNorms
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.profiling import Profiler
from megapt.monitoring.samples import SampleWriter
from megapt.resilience.replicas import compare_replicas
from megapt.resilience.watchdog import Watchdog
from megapt.training.prepared import PreparedRun
from megapt.training.updating import StepResult


@dataclass
class Validated:
    """Results of one validation; the hooks fill it."""

    scores: dict[str, float] = field(default_factory=dict)
    """Metric -> value, as `evaluate` returns them."""
    samples: list[str] = field(default_factory=list)
    """Texts that the model generated."""


@dataclass(frozen=True)
class ActiveRun:
    """A run with its engine, its monitor and its watchdog."""

    prepared: PreparedRun
    engine: Engine
    monitor: Monitor
    watchdog: Watchdog


class Hook:
    """Base class of hooks. The loop calls them one after another, on all ranks together."""

    def before_step(self, step: int) -> None:
        """Prepare `step`, counted from 1. Its data are loaded."""

    def before_update(self, step: int) -> None:
        """Inspect the gradients of `step`, after its last backward pass."""

    def after_update(self, step: int, applied: bool) -> None:
        """Inspect the weights after the update of `step`; `applied` is false if it was skipped."""

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Inspect the result of `step`, before the loop reacts to it.

        Args:
            step: number of the completed step.
            updated: result of the step.
            last: whether the budget is spent.
        """

    def at_validation(self, validated: Validated) -> None:
        """Add results to `validated`. The engine holds the weights that are validated."""

    def at_checkpoint(self, step: int) -> None:
        """Inspect the weights before they are saved after `step`."""

    def close(self) -> None:
        """Release what the hook holds; called however the run ends."""


class Profiling(Hook):
    """Traces some steps of rank 0."""

    def __init__(self, run: ActiveRun) -> None:
        parts = run.prepared.parts
        monitor, place = parts.config.monitor, run.prepared.folder.folder / "profile"
        self._profiler: Profiler | None = None
        if parts.ranks.main and monitor.profile_from:
            first, count = monitor.profile_from, monitor.profile_steps
            self._profiler = Profiler(place, first, count, parts.ranks.device)

    def before_step(self, step: int) -> None:
        """Start the trace at its first step."""
        if self._profiler is not None:
            self._profiler.before(step)

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Write the trace after its last step."""
        if self._profiler is not None:
            self._profiler.after(step)

    def close(self) -> None:
        """Write an unfinished trace if the run ends inside it."""
        if self._profiler is not None:
            self._profiler.close()


class MovingAverage(Hook):
    """Updates the moving average of the weights, if the run has one."""

    def __init__(self, run: ActiveRun) -> None:
        self._engine = run.engine

    def after_update(self, step: int, applied: bool) -> None:
        """Update the average after an applied update."""
        if applied:
            self._engine.update_average()


class Histograms(Hook):
    """Records histograms of the weights."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._every = run.prepared.parts.config.monitor.histograms_every

    def after_update(self, step: int, applied: bool) -> None:
        """Record one histogram per parameter, if they are due."""
        if is_due(step, self._every):
            for name, weights in self._run.engine.full_parameters():
                self._run.monitor.histogram(step, name, weights)


class ReplicaCheck(Hook):
    """Compares replicated weights across ranks, at an interval and before each save."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        config = run.prepared.parts.config
        self._every, self._saves = config.faults.check_replicas_every, config.checkpoint.every
        self._compared = run.prepared.state.step

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Compare the weights if it is due, and at steps that save, before they are validated."""
        if self._every and (last or is_due(step, self._every) or is_due(step, self._saves)):
            self._compare(step)

    def at_checkpoint(self, step: int) -> None:
        """Compare the weights before any save, so that no corrupt weights are saved."""
        if self._every and step != self._compared:
            self._compare(step)

    def _compare(self, step: int) -> None:
        try:
            compare_replicas(self._run.engine, self._run.prepared.parts.ranks)
        except TrainingError as error:
            raise TrainingError(f"step {step}: {error}") from None
        self._compared = step


class Records(Hook):
    """Passes the results of a step and its norms by group to the monitor."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._config = run.prepared.parts.config
        self._norms: GroupNorms | None = None
        if self._config.monitor.norms_by_group:
            self._norms = GroupNorms(run.prepared.parts.ranks)
        self._groups: dict[str, float] = {}

    def before_update(self, step: int) -> None:
        """Measure gradients and weights, if norms are recorded for this step."""
        if self._norms is not None and is_due(step, self._config.training.log_every):
            self._norms.before(self._run.engine)

    def after_update(self, step: int, applied: bool) -> None:
        """Measure the update, if norms are recorded for this step."""
        if self._norms is not None and is_due(step, self._config.training.log_every):
            self._groups = self._norms.after(self._run.engine)

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Write a record if it is due, and for every step with an event."""
        event = updated.reaction.event
        if last or event or is_due(step, self._config.training.log_every):
            self._run.monitor.train(step, self._record(updated))
        if event:
            self._run.monitor.event(step, event, **updated.reaction.what)

    def _record(self, updated: StepResult) -> dict[str, Any]:
        prepared = self._run.prepared
        ranks = prepared.parts.ranks
        scores = updated.scores.reduce(ranks)
        data = prepared.loader.state(ranks.gather)
        record: dict[str, Any] = {
            **scores,
            **updated.numbers,
            **prepared.state.spent.as_dict(),
            **prepared.maker.stream.epochs(data.windows),
            "skipped_shards": data.skipped_shards,
            "skipped_updates": prepared.guard.skipped,
            "rollbacks": prepared.guard.rollbacks,
        }
        if self._groups:
            record["groups"], self._groups = self._groups, {}
        return record


class ValidationScores(Hook):
    """Computes loss and accuracy on the validation windows."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def at_validation(self, validated: Validated) -> None:
        """Add the scores to the validation."""
        prepared, watchdog = self._run.prepared, self._run.watchdog
        training, step = prepared.parts.config.training, prepared.state.step
        validated.scores |= evaluate(
            self._run.engine,
            prepared.validation,
            windows=training.validation_windows,
            micro_batch_size=training.micro_batch_size,
            ranks=prepared.parts.ranks,
            begun=lambda: watchdog.beat(step, "validation"),
        )


class Samples(Hook):
    """Generates texts with the model."""

    def __init__(self, run: ActiveRun) -> None:
        self._engine = run.engine
        parts = run.prepared.parts
        self._writer = SampleWriter(
            parts.config,
            parts.objective,
            run.prepared.corpus,
            run.prepared.validation,
            parts.ranks,
            in_rows=parts.backend.rows,
        )

    def at_validation(self, validated: Validated) -> None:
        """Add the texts to the validation."""
        validated.samples += self._writer.write(self._engine)


HOOKS: tuple[Callable[[ActiveRun], Hook], ...] = (
    Profiling,
    MovingAverage,
    Histograms,
    ReplicaCheck,
    Records,
    ValidationScores,
    Samples,
)
"""All hooks, in the order in which the loop calls them."""
