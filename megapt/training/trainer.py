"""Trains one run: from its first update, or its last checkpoint, to the end of its budget."""

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
from megapt.training.engine import make_engine
from megapt.training.hooks import HOOKS, ActiveRun, Hook, Validated
from megapt.training.prepared import PreparedRun
from megapt.training.steps import StepData, agreed_steps
from megapt.training.updating import StepResult, Updater

Steps = Generator[StepData, None, None]


class Trainer:
    """Trains a run on the ranks of this job.

    Args:
        prepared: the run; it is trained once.
    """

    engine: Engine
    watchdog: Watchdog
    monitor: Monitor
    hooks: list[Hook]
    updater: Updater
    _sound: bool
    """Whether the last update was applied: what is saved may be gone back to."""
    _restored: int | None
    """Step whose weights a rollback took, as long as no update of them was applied."""

    def __init__(self, prepared: PreparedRun) -> None:
        self.prepared = prepared
        self.state = prepared.state
        self.config, self.ranks = prepared.parts.config, prepared.parts.ranks
        self.folder, self.checkpoints = prepared.folder, prepared.checkpoints
        self.loader, self.guard = prepared.loader, prepared.guard

    def train(self) -> dict[str, Any]:
        """Train to the end of the budget.

        Returns:
            The summary that is also written to the run folder: steps, spent, held-out scores.

        Raises:
            MegaptError: on every rank, if one of them cannot read its part of the corpus; a
                checkpoint was written.
            RunInterrupted: after SIGINT, SIGTERM or SIGUSR1; a checkpoint was written.
            TrainingError: too much of the training was lost to faults, the ranks' weights differ,
                or the corpora are used up.
        """
        if self.folder.finished:
            return self.folder.summary()
        self._stops = StopRequests()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._stops.heard())
                self._start(stack)
                with self._recording_its_end():
                    self._loop(stack)
                    validation = self._validate()
                    self._checkpoint()
                    self._finish_checkpoints()
                return self._finish(validation)
        except TrainingError as error:
            raise TrainingError(f"{self.folder.folder}: {error}") from None

    def _start(self, stack: ExitStack) -> None:
        """Build the engine and what watches it; the run folder is there from now on."""
        prepared, ranks, state = self.prepared, self.ranks, self.state
        self._sound, self._restored = True, None
        ranks.barrier()  # A slower rank still looks whether the folder is free.
        if ranks.main:
            self.folder.create(self.config, prepared.corpus, ranks.world)
        ranks.barrier()
        self.watchdog = Watchdog(self.folder.folder, ranks, self.config.faults)
        stack.enter_context(self.watchdog.watching())
        with self.watchdog.slowly("start"):
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
                self._checkpoint()  # A branch needs its parent no more.

    @contextmanager
    def _recording_its_end(self) -> Iterator[None]:
        """Record an end before the budget's."""
        try:
            yield
        except TrainingError as error:
            self._finish_checkpoints()  # All ranks have it: what is begun may be finished.
            self.monitor.event(self.state.step, "failed", reason=str(error))
            raise
        except RunInterrupted as error:
            self.monitor.event(self.state.step, "stopped", code=error.code.value)
            raise

    def _loop(self, stack: ExitStack) -> None:
        steps = stack.enter_context(closing(self._steps()))
        owed, first = False, self.state.step  # owed: a checkpoint, until the weights are sound
        while self._share() < 1.0:
            with ExitStack() as waiting:
                if self.state.step == first:  # Compilation, and whatever else is done but once.
                    waiting.enter_context(self.watchdog.slowly("first step"))
                updated, stop = self._step(steps)
            step, last = self.state.step, self._share() >= 1.0
            for hook in self.hooks:
                hook.after_step(step, updated, last)
            self._react(updated)
            # After a rollback too: a resumed run shall not come by the same text.
            owed = owed or updated.reaction.rollback or is_due(step, self.config.checkpoint.every)
            if last:
                return  # The end validates and saves by itself.
            if is_due(step, self.config.training.validate_every):
                self._validate()
            if stop or (owed and self._sound):
                self._checkpoint()
                owed = not self._sound
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
        """Do one step; return what it came to, and whether some rank was asked to stop."""
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
        """Return the next step's data, or save what is learnt and say why there is none.

        All ranks end here together, so all can save.
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
                f"the budget, where a checkpoint was written; raise their max_epochs or lower "
                f"training.budget.amount"
            ) from None

    def _react(self, updated: StepResult) -> None:
        """Do what an update asks for: nothing as a rule, else a rollback."""
        if updated.applied:
            self._restored = None
        # Updates that are left out may come of weights that an earlier one has ruined.
        self._sound = updated.applied and not updated.reaction.rollback
        if updated.reaction.rollback:
            self._roll_back(updated.reaction.what["reason"])

    def _roll_back(self, reason: str) -> None:
        """Take the weights of the last checkpoint, and continue with the text that comes next."""
        step = self.state.step
        with self.watchdog.slowly("rollback"):
            self.checkpoints.settle(True)
            # Weights from which no update could be applied are not gone back to twice.
            saved = self.checkpoints.newest(before=self._restored)
            if saved is None:
                other = "other " if self._restored else ""
                reason = f"{reason}, and there is no {other}checkpoint to go back to"
                raise self.guard.failure(step, reason)
            self.checkpoints.load(saved, self.engine)
        self._restored, self.state.score = saved.step, None
        self.monitor.event(step, "rollback", to=saved.step, reason=reason)

    def _validate(self) -> dict[str, float]:
        state, validated = self.state, Validated()
        with (
            self.watchdog.slowly("validation"),
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
        with self.watchdog.slowly("checkpoint"), self.monitor.pause("checkpoint"):
            self.checkpoints.save(self.engine, state, self.state.score, self._sound)

    def _finish_checkpoints(self) -> None:
        """Wait until what was saved is written, and record what became of it."""
        with self.watchdog.slowly("checkpoint"):
            self.checkpoints.finish()
        self._record_checkpoints()

    def _record_checkpoints(self) -> None:
        for event in self.checkpoints.take_events():
            # The checkpoint may be one of a later step than the run is at now.
            self.monitor.event(self.state.step, event.kind, checkpoint=event.step, text=event.text)

    def _interrupted(self) -> RunInterrupted:
        self._finish_checkpoints()
        ctrl_c = self.ranks.any(self._stops.interrupted)
        return RunInterrupted(
            f"{self.folder.folder}: stopped after step {self.state.step}",
            Exit.INTERRUPTED if ctrl_c else Exit.START_AGAIN,
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
