"""The training loop of one run, from its first step or its last checkpoint to its budget."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from megapt.checkpoint import TrainerState
from megapt.config import is_due
from megapt.data.budget import Spent
from megapt.distributed.deepspeed_config import zero_stage
from megapt.distributed.engine import Engine
from megapt.errors import Exit, MegaptError, RunInterrupted, TrainingError
from megapt.files import write_json
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.throughput import StepTimes
from megapt.resilience.stopping import StopRequested, StopRequests
from megapt.resilience.watchdog import Watchdog
from megapt.training.hooks import HOOKS, ActiveRun, Hook, Validated
from megapt.training.make_engine import make_engine
from megapt.training.prepared import PreparedRun
from megapt.training.steps import StepData, agreed_steps
from megapt.training.updating import StepResult, Updater

Steps = Generator[StepData, None, None]


class Trainer:
    """Trains a run on the ranks of this job.

    Args:
        prepared: the run. One trainer trains it once.
    """

    engine: Engine
    watchdog: Watchdog
    monitor: Monitor
    hooks: list[Hook]
    updater: Updater
    _healthy: bool
    """Whether the last update was applied, so that a rollback may use a save of these weights."""
    _restored: int | None
    """Step whose weights the last rollback restored; None once an update of them was applied."""

    def __init__(self, prepared: PreparedRun) -> None:
        self.prepared = prepared
        self.state = prepared.state
        self.config, self.ranks = prepared.parts.config, prepared.parts.ranks
        self.folder, self.checkpoints = prepared.folder, prepared.checkpoints
        self.loader, self.guard = prepared.loader, prepared.guard

    def train(self) -> dict[str, Any]:
        """Train to the end of the budget.

        Returns:
            The summary that is also written to the run folder: steps, amounts spent, counts of
            skipped updates and rollbacks, data state, throughput, validation scores.

        Raises:
            MegaptError: on every rank, if one of them cannot read its part of the corpus. A
                checkpoint is written first.
            RunInterrupted: after SIGINT, SIGTERM or SIGUSR1. A checkpoint is written first.
            TrainingError: if there were too many skipped updates or rollbacks, if the ranks'
                weights differ, or if the corpora are used up.
        """
        if self.folder.finished:
            return self.folder.summary()
        self._stops = StopRequests()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._stops.handling())
                self._start(stack)
                with self._recording_failure():
                    self._loop(stack)
                    validation = self._validate()
                    self._checkpoint()
                    self._finish_checkpoints()
                return self._finish(validation)
        except TrainingError as error:
            raise TrainingError(f"{self.folder.folder}: {error}") from None

    def _start(self, stack: ExitStack) -> None:
        """Create the run folder, and build the engine, the watchdog, the monitor and the hooks."""
        prepared, ranks, state = self.prepared, self.ranks, self.state
        self._healthy, self._restored = True, None
        ranks.barrier()  # A slower rank may still be checking whether the folder is free.
        if ranks.main:
            self.folder.create(self.config, prepared.corpus, ranks.world)
        ranks.barrier()
        self.watchdog = Watchdog(self.folder.folder, ranks, self.config.faults)
        stack.enter_context(self.watchdog.watching())
        with self.watchdog.slow_phase("start"):
            self.engine = make_engine(prepared.parts)
            stack.callback(self.engine.close)
            if prepared.saved is not None:
                self.checkpoints.load(prepared.saved, self.engine)
        trackers = prepared.parts.trackers
        self.monitor = Monitor(self.folder, self.config, trackers, ranks, state.step, state.spent)
        stack.callback(self.monitor.close)
        run = ActiveRun(prepared, self.engine, self.monitor, self.watchdog)
        self.hooks = [stack.enter_context(closing(hook(run))) for hook in HOOKS]
        self.updater = Updater(
            self.engine,
            prepared.parts,
            self.guard,
            self.watchdog,
            before=self._before_update,
            after=self._after_update,
        )
        if prepared.saved is not None:
            path = prepared.saved.path
            self.monitor.event(state.step, "resumed", ranks=ranks.world, path=str(path))
            if path.parent != self.folder.checkpoints:
                self._checkpoint()  # From now on the branch does not need its parent.

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        """Record an event if the run ends before its budget is spent."""
        try:
            yield
        except TrainingError as error:
            self._finish_checkpoints()  # All ranks raise it, so they can still save together.
            self.monitor.event(self.state.step, "failed", reason=str(error))
            raise
        except RunInterrupted as error:
            self.monitor.event(self.state.step, "stopped", code=error.code.value)
            raise

    def _loop(self, stack: ExitStack) -> None:
        steps = stack.enter_context(closing(self._steps()))
        # A due checkpoint waits until the last update was applied.
        save_due, first = False, self.state.step
        while self._share() < 1.0:
            with ExitStack() as waiting:
                if self.state.step == first:  # It includes compilation and other one-time work.
                    waiting.enter_context(self.watchdog.slow_phase("first step"))
                updated, stop = self._step(steps)
            step, last = self.state.step, self._share() >= 1.0
            for hook in self.hooks:
                hook.after_step(step, updated, last)
            self._react(updated)
            # A rollback is saved too, so that a resumed run does not read the same text again.
            rolled_back = updated.reaction.rollback
            save_due = save_due or rolled_back or is_due(step, self.config.checkpoint.every)
            if last:
                return  # `train` validates and saves at the end.
            if is_due(step, self.config.training.validate_every):
                self._validate()
            if stop or (save_due and self._healthy):
                self._checkpoint()
                save_due = not self._healthy
            self._record_checkpoints()
            if stop:
                raise self._interrupted()

    def _steps(self) -> Steps:
        return agreed_steps(
            self.loader,
            self.config.data.num_workers,
            self.prepared.parts.objective.heads,
            self.ranks,
            self._stops,
            lambda: self.watchdog.beat(self.state.step + 1, "agreement"),
        )

    def _step(self, steps: Steps) -> tuple[StepResult, bool]:
        """Do one step; return its result, and whether any rank was asked to stop."""
        step = self.state.step + 1
        began = time.perf_counter()
        self.watchdog.beat(step, "data")
        data = self._next(steps)
        for hook in self.hooks:
            hook.before_step(step)
        updated = self.updater.update(step, data, self._share())
        elapsed = time.perf_counter() - began
        seconds, stop, unwritten = self.ranks.sum(
            [elapsed * self.ranks.main, self._stops.received, not self.checkpoints.poll()]
        )
        self.state.spent = self.state.spent.plus(updated.spent).plus(Spent(wall_clock=seconds))
        self.state.step = step
        self.checkpoints.settle(not unwritten)
        rest = elapsed - data.seconds - updated.computed
        self.monitor.step(StepTimes(data.seconds, updated.computed, rest))
        return updated, stop > 0

    def _before_update(self, step: int) -> None:
        for hook in self.hooks:
            hook.before_update(step)

    def _after_update(self, step: int, applied: bool) -> None:
        for hook in self.hooks:
            hook.after_update(step, applied)

    def _next(self, steps: Steps) -> StepData:
        """Return the next step's data; if there is none, save a checkpoint and raise the reason.

        All ranks end together here, so that all can save.
        """
        try:
            return next(steps)
        except (MegaptError, StopRequested, StopIteration) as end:
            if self.state.step:
                self._checkpoint()
            if isinstance(end, StopRequested):
                raise self._interrupted() from None
            self._finish_checkpoints()
            if isinstance(end, MegaptError):
                raise
            raise TrainingError(
                f"the corpora are used up after step {self.state.step}, at {self._share():.1%} of "
                f"the budget; a checkpoint was written; raise their max_epochs or lower "
                f"training.budget.amount"
            ) from None

    def _react(self, updated: StepResult) -> None:
        """Roll back if the guard asks for it, and note whether the weights may be saved."""
        if updated.applied:
            self._restored = None
        # Skipped updates may be the effect of weights that an earlier update has spoiled.
        self._healthy = updated.applied and not updated.reaction.rollback
        if updated.reaction.rollback:
            self._roll_back(updated.reaction.what["reason"])

    def _roll_back(self, reason: str) -> None:
        """Restore the weights of the last checkpoint; the data continue with the next text."""
        step = self.state.step
        with self.watchdog.slow_phase("rollback"):
            self.checkpoints.settle(True)
            # A checkpoint after which no update could be applied is not restored twice.
            saved = self.checkpoints.newest(before=self._restored)
            if saved is None:
                other = "other " if self._restored else ""
                reason = f"{reason}, and there is no {other}checkpoint to roll back to"
                raise self.guard.failure(step, reason)
            self.checkpoints.load(saved, self.engine)
        self._restored, self.state.score = saved.step, None
        self.monitor.event(step, "rollback", to=saved.step, reason=reason)

    def _validate(self) -> dict[str, float]:
        state, validated = self.state, Validated()
        with (
            self.watchdog.slow_phase("validation"),
            self.monitor.pause("validation"),
            self.engine.averaged(),
        ):
            for hook in self.hooks:
                hook.at_validation(validated)
        state.score = validated.scores.get(self.config.checkpoint.metric)
        record: dict[str, Any] = {**validated.scores, **state.spent.as_dict()}
        record["skipped_shards"] = self.prepared.validation_state().skipped_shards
        if validated.samples:
            record["samples"] = validated.samples
        self.monitor.validation(state.step, record)
        return validated.scores

    def _checkpoint(self) -> None:
        step = self.state.step
        for hook in self.hooks:
            hook.at_checkpoint(step)
        state = TrainerState(
            step=step,
            spent=self.state.spent.as_dict(),
            ranks=self.ranks.world,
            sequence=self.ranks.sequence_world,
            zero_stage=zero_stage(self.config),
            precision=self.config.training.precision,
            data=self.loader.state(self.ranks.gather),
            validation=self.prepared.validation_state(),
            guard=self.guard.state,
        )
        with self.watchdog.slow_phase("checkpoint"), self.monitor.pause("checkpoint"):
            self.checkpoints.save(self.engine, state, self.state.score, self._healthy)

    def _finish_checkpoints(self) -> None:
        """Wait until all checkpoints are written, and record their events."""
        with self.watchdog.slow_phase("checkpoint"):
            self.checkpoints.finish()
        self._record_checkpoints()

    def _record_checkpoints(self) -> None:
        for event in self.checkpoints.take_events():
            # The checkpoint may belong to another step than the one the run is at.
            self.monitor.event(self.state.step, event.kind, checkpoint=event.step, text=event.text)

    def _interrupted(self) -> RunInterrupted:
        self._finish_checkpoints()
        ctrl_c = self.ranks.any(self._stops.interrupted)
        return RunInterrupted(
            f"{self.folder.folder}: stopped after step {self.state.step}",
            Exit.INTERRUPTED if ctrl_c else Exit.RESTART,
        )

    def _share(self) -> float:
        return self.state.spent.share(self.config.training.budget)

    def _finish(self, validation: dict[str, float]) -> dict[str, Any]:
        summary = {
            "steps": self.state.step,
            "spent": self.state.spent.as_dict(),
            "skipped_updates": self.guard.skipped,
            "rollbacks": self.guard.rollbacks,
            "data": self.loader.state(self.ranks.gather).to_json(),
            "tokens_per_second": self.state.spent.speed,
            "validation": validation,
        }
        if self.ranks.main:
            write_json(self.folder.summary_file, summary)
        return summary
