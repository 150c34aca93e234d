"""What is done at the steps and validations of a run, beside the updates themselves."""

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
    """What a validation finds."""

    scores: dict[str, float] = field(default_factory=dict)
    """See `evaluate`."""
    samples: list[str] = field(default_factory=list)
    """Texts that the model wrote."""


@dataclass(frozen=True)
class ActiveRun:
    """A run with its engine, and what watches it."""

    prepared: PreparedRun
    engine: Engine
    monitor: Monitor
    watchdog: Watchdog


class Hook:
    """Base of all hooks. The loop calls each of them, in order, on all ranks together."""

    def before_step(self, step: int) -> None:
        """Begin `step`, counted from 1: the data is there."""

    def before_update(self, step: int) -> None:
        """See the gradients of `step`, after its last backward pass."""

    def after_update(self, step: int, applied: bool) -> None:
        """See the weights after the update of `step`, if it was applied."""

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """See what `step` came to, before anything is done about it.

        Args:
            step: that is done.
            updated: what it came to.
            last: whether the budget is spent.
        """

    def at_validation(self, validated: Validated) -> None:
        """Add to a validation; the weights that are validated are in place."""

    def at_checkpoint(self, step: int) -> None:
        """See the weights before they are saved after `step`."""

    def close(self) -> None:
        """End, however the run ends."""


class Profiling(Hook):
    """Traces some steps of the first rank."""

    def __init__(self, run: ActiveRun) -> None:
        parts = run.prepared.parts
        monitor, place = parts.config.monitor, run.prepared.folder.folder / "profile"
        self._profiler: Profiler | None = None
        if parts.ranks.main and monitor.profile_from:
            first, count = monitor.profile_from, monitor.profile_steps
            self._profiler = Profiler(place, first, count, parts.ranks.device)

    def before_step(self, step: int) -> None:
        """Begin the trace at its first step."""
        if self._profiler is not None:
            self._profiler.before(step)

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Write the trace after its last step."""
        if self._profiler is not None:
            self._profiler.after(step)

    def close(self) -> None:
        """Write a trace that the run ended in."""
        if self._profiler is not None:
            self._profiler.close()


class MovingAverage(Hook):
    """Takes the weights into their moving average, if the run has one."""

    def __init__(self, run: ActiveRun) -> None:
        self._engine = run.engine

    def after_update(self, step: int, applied: bool) -> None:
        """Take in the weights of an applied update."""
        if applied:
            self._engine.update_average()


class Histograms(Hook):
    """Shows how the weights are spread."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._every = run.prepared.parts.config.monitor.histograms_every

    def after_update(self, step: int, applied: bool) -> None:
        """Show one parameter after another."""
        if is_due(step, self._every):
            for name, weights in self._run.engine.full_parameters():
                self._run.monitor.histogram(step, name, weights)


class ReplicaCheck(Hook):
    """Compares the weights that ranks hold alike: now and then, and before they are saved."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        config = run.prepared.parts.config
        self._every, self._saves = config.faults.check_replicas_every, config.checkpoint.every
        self._compared = run.prepared.state.step

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Compare them if it is time, and before those that will be saved are validated."""
        if self._every and (last or is_due(step, self._every) or is_due(step, self._saves)):
            self._compare(step)

    def at_checkpoint(self, step: int) -> None:
        """Compare them before corrupted weights are saved, whatever the reason is for that."""
        if self._every and step != self._compared:
            self._compare(step)

    def _compare(self, step: int) -> None:
        try:
            compare_replicas(self._run.engine, self._run.prepared.parts.ranks)
        except TrainingError as error:
            raise TrainingError(f"step {step}: {error}") from None
        self._compared = step


class Records(Hook):
    """Hands what a step came to, and its norms by group, to the monitor."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._config = run.prepared.parts.config
        self._norms: GroupNorms | None = None
        if self._config.monitor.norms_by_group:
            self._norms = GroupNorms(run.prepared.parts.ranks)
        self._groups: dict[str, float] = {}

    def before_update(self, step: int) -> None:
        """Take gradients and weights of an update whose norms are recorded."""
        if self._norms is not None and is_due(step, self._config.training.log_every):
            self._norms.before(self._run.engine)

    def after_update(self, step: int, applied: bool) -> None:
        """Take what the update did to the weights."""
        if self._norms is not None and is_due(step, self._config.training.log_every):
            self._groups = self._norms.after(self._run.engine)

    def after_step(self, step: int, updated: StepResult, last: bool) -> None:
        """Record a step that is due, or remarkable."""
        event = updated.reaction.event
        if last or event or is_due(step, self._config.training.log_every):
            self._run.monitor.train(step, self._record(updated))
        if event:
            self._run.monitor.event(step, event, **updated.reaction.what)

    def _record(self, updated: StepResult) -> dict[str, Any]:
        prepared = self._run.prepared
        ranks = prepared.parts.ranks
        scores = updated.scores.reduce(ranks)
        read = prepared.loader.state(ranks.gather)
        record: dict[str, Any] = {
            **scores,
            **updated.numbers,
            **prepared.state.spent.as_dict(),
            **prepared.maker.stream.epochs(read.windows),
            "skipped_shards": read.skipped_shards,
            "skipped_updates": prepared.guard.skipped,
            "rollbacks": prepared.guard.rollbacks,
        }
        if self._groups:
            record["groups"], self._groups = self._groups, {}
        return record


class HeldoutScores(Hook):
    """Scores the held-out windows."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def at_validation(self, validated: Validated) -> None:
        """Add the scores."""
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
    """Has the model write."""

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
        """Add the texts."""
        validated.samples += self._writer.write(self._engine)


HOOKS: tuple[Callable[[ActiveRun], Hook], ...] = (
    Profiling,
    MovingAverage,
    Histograms,
    ReplicaCheck,
    Records,
    HeldoutScores,
    Samples,
)
"""In the order in which they are called."""
