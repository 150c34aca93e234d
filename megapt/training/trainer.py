"""Trains one run: from a configuration to checkpoints and metrics."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import Any

from megapt.checkpoint import TrainerState
from megapt.config import is_due
from megapt.data import LoaderState
from megapt.data.budget import Spent
from megapt.data.state import join_skipped
from megapt.distributed.deepspeed_config import zero_stage
from megapt.errors import Exit, MegaptError, RunInterrupted, TrainingError
from megapt.evaluation.validation import evaluate
from megapt.files import write_json
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.samples import SampleWriter
from megapt.monitoring.throughput import StepTimes
from megapt.resilience.replicas import compare_replicas
from megapt.resilience.stopping import StopRequested, StopRequests
from megapt.resilience.watchdog import Watchdog
from megapt.training.engine import make_engine
from megapt.training.prepared import PreparedRun
from megapt.training.steps import StepData, agreed_steps
from megapt.training.updating import Updated, Updater

Steps = Generator[StepData, None, None]


class Trainer(PreparedRun):
    """One run on the ranks of this job; arguments and errors are those of `PreparedRun`."""

    _sound: bool
    """Whether the last update was applied: what is saved may be gone back to."""
    _restored: int | None
    """Step whose weights a rollback took, as long as no update of them was applied."""

    def train(self) -> dict[str, Any]:
        """Train to the end of the budget, from the newest checkpoint if there is one.

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
                try:
                    self._loop(stack)
                except TrainingError as error:
                    self._finish_checkpoints()  # All ranks have it: what is begun may be finished.
                    self.monitor.event(self._done, "failed", reason=str(error))
                    raise
                except RunInterrupted as error:
                    self.monitor.event(self._done, "stopped", code=error.code.value)
                    raise
                heldout = self._validate()
                self._checkpoint()
                self._finish_checkpoints()
                return self._finish(heldout)
        except TrainingError as error:
            raise TrainingError(f"{self.folder.folder}: {error}") from None

    def _start(self, stack: ExitStack) -> None:
        """Build the engine and what watches it; the run folder is there from now on."""
        config, ranks = self.config, self.ranks
        self._sound, self._restored = True, None
        ranks.barrier()  # A slower rank still looks whether the folder is free.
        if ranks.main:
            self.folder.create(config, self.corpus, ranks.world)
        ranks.barrier()
        self.watchdog = Watchdog(self.folder.folder, ranks, config.faults)
        stack.enter_context(self.watchdog.watching())
        with self.watchdog.slowly("start"):
            size = self.corpus.vocabulary.size
            self.engine = make_engine(config, self.objective.heads, size, ranks, self.origins)
            stack.callback(self.engine.close)
            if self._saved is not None:
                self.checkpoints.load(self._saved, self.engine)
        self.monitor = Monitor(self.folder, config, ranks, self._done, self._spent)
        stack.callback(self.monitor.close)
        if self._saved is not None:
            self.monitor.event(self._done, "resumed", ranks=ranks.world, path=str(self._saved.path))
        self.samples = SampleWriter(config, self.objective, self.corpus, self.heldout, ranks)
        self.updater = Updater(
            self.engine,
            config,
            self.objective.heads,
            size,
            ranks,
            self.guard,
            self.monitor,
            self.watchdog,
        )
        if self._saved is not None and self._saved.path.parent != self.folder.checkpoints:
            self._checkpoint()  # A branch needs its parent no more.

    def _finish(self, heldout: dict[str, float]) -> dict[str, Any]:
        summary = {
            "steps": self._done,
            "spent": self._spent.as_dict(),
            "skipped_updates": self.guard.skipped,
            "rollbacks": self.guard.rollbacks,
            "data": self.loader.state(self.ranks.gather).to_json(),
            "tokens_per_second": self._spent.speed,
            "heldout": heldout,
        }
        if self.ranks.main:
            write_json(self.folder.summary_file, summary)
        return summary

    def _share(self) -> float:
        return self._spent.share(self.config.training.budget)

    def _loop(self, stack: ExitStack) -> None:
        training, faults = self.config.training, self.config.faults
        steps = stack.enter_context(
            closing(
                agreed_steps(
                    self.loader,
                    self.config.data.workers,
                    self.objective.heads,
                    self.ranks,
                    self._stops,
                    lambda: self.watchdog.beat(self._done + 1, "agreement"),
                )
            )
        )
        owed, first = False, self._done
        while self._share() < 1.0:
            with ExitStack() as waiting:
                if self._done == first:  # Compilation, and whatever else is done but once.
                    waiting.enter_context(self.watchdog.slowly("first step"))
                updated, stop = self._step(steps)
            end = self._share() >= 1.0
            owed = owed or is_due(self._done, self.config.checkpoint.every)
            # Updates that are left out may come of weights that an earlier one has ruined.
            self._sound = updated.applied and not updated.reaction.rollback
            saving = end or stop or (owed and self._sound)
            if faults.replicas_every and (saving or is_due(self._done, faults.replicas_every)):
                self._compare_replicas()  # Before corrupted weights are saved.
            if end or updated.reaction.event or is_due(self._done, training.log_every):
                self._log(updated)
            if updated.reaction.event:
                self.monitor.event(self._done, updated.reaction.event, **updated.reaction.what)
            if updated.applied:
                self._restored = None
            if updated.reaction.rollback:
                self._go_back(updated.reaction.what["reason"])
                owed = True  # A resumed run shall not come by the same text.
            if end:
                return  # The end validates and saves by itself.
            if is_due(self._done, training.validate_every):
                self._validate()
            if saving:
                self._checkpoint()
                owed = not self._sound
            self._tell_of_checkpoints()
            if stop:
                raise self._interrupted()

    def _step(self, steps: Steps) -> tuple[Updated, bool]:
        """Do one step; return what it came to, and whether some rank was asked to stop."""
        step = self._done + 1
        began = time.perf_counter()
        self.watchdog.beat(step, "data")
        data = self._next(steps)
        self.monitor.begin(step)
        updated = self.updater.update(step, data, self._share())
        elapsed = time.perf_counter() - began
        seconds, stop, unwritten = self.ranks.sum(
            [elapsed * self.ranks.main, self._stops.received, not self.checkpoints.poll()]
        )
        self._spent = self._spent.plus(updated.spent).plus(Spent(wall_clock=seconds))
        self._done = step
        self.checkpoints.settle(not unwritten)
        rest = elapsed - data.seconds - updated.computed
        self.monitor.step(step, StepTimes(data.seconds, updated.computed, rest))
        return updated, stop > 0

    def _next(self, steps: Steps) -> StepData:
        """Return the next step's data, or save what is learnt and say why there is none.

        All ranks end here together, so all can save.
        """
        try:
            return next(steps)
        except (MegaptError, StopRequested, StopIteration) as end:
            if self._done:
                self._checkpoint()
            if isinstance(end, StopRequested):
                raise self._interrupted() from None
            self._finish_checkpoints()
            if isinstance(end, MegaptError):
                raise
            raise TrainingError(
                f"the corpora are used up after step {self._done}, at {self._share():.1%} of the "
                f"budget, where a checkpoint was written; raise their max_epochs or lower "
                f"training.budget.amount"
            ) from None

    def _interrupted(self) -> RunInterrupted:
        self._finish_checkpoints()
        ctrl_c = self.ranks.any(self._stops.interrupted)
        return RunInterrupted(
            f"{self.folder.folder}: stopped after step {self._done}",
            Exit.INTERRUPTED if ctrl_c else Exit.START_AGAIN,
        )

    def _go_back(self, reason: str) -> None:
        """Take the weights of the last checkpoint, and go on with the text that comes next."""
        with self.watchdog.slowly("rollback"):
            self.checkpoints.settle(True)
            # Weights from which no update could be applied are not gone back to twice.
            saved = self.checkpoints.newest(before=self._restored)
            if saved is None:
                other = "other " if self._restored else ""
                reason = f"{reason}, and there is no {other}checkpoint to go back to"
                raise self.guard.give_up(self._done, reason)
            self.checkpoints.load(saved, self.engine)
        self._restored, self._score = saved.step, None
        self.monitor.event(self._done, "rollback", to=saved.step, reason=reason)

    def _compare_replicas(self) -> None:
        try:
            compare_replicas(self.engine, self.ranks)
        except TrainingError as error:
            raise TrainingError(f"step {self._done}: {error}") from None

    def _log(self, updated: Updated) -> None:
        scores = updated.scores.reduce(self.ranks)
        read = self.loader.state(self.ranks.gather)
        record = {
            **scores,
            **updated.numbers,
            **self._spent.as_dict(),
            **self.maker.stream.epochs(read.windows),
            "skipped_shards": read.skipped_shards,
            "skipped_updates": self.guard.skipped,
            "rollbacks": self.guard.rollbacks,
        }
        self.monitor.train(self._done, record)

    def _validate(self) -> dict[str, float]:
        training = self.config.training
        with (
            self.watchdog.slowly("validation"),
            self.monitor.pause("validation"),
            self.engine.averaged(),
        ):
            scores = evaluate(
                self.engine,
                self.heldout,
                windows=training.validation_windows,
                micro_batch=training.micro_batch,
                ranks=self.ranks,
                begun=lambda: self.watchdog.beat(self._done, "validation"),
            )
            samples = self.samples.write(self.engine)
        self._score = scores.get(self.config.checkpoint.metric)
        skipped = self._heldout_state().skipped_shards
        record = {**scores, **self._spent.as_dict(), "skipped_shards": skipped}
        self.monitor.valid(self._done, record, samples)
        return scores

    def _heldout_state(self) -> LoaderState:
        """Return which held-out shards some rank has left out; nothing else of it changes."""
        stream = self.heldout.stream
        skipped = join_skipped(self.ranks.gather(stream.skipped))
        return LoaderState(stream.identity, skipped=skipped)

    def _checkpoint(self) -> None:
        state = TrainerState(
            step=self._done,
            spent=self._spent.as_dict(),
            ranks=self.ranks.world,
            sequence=self.ranks.sequence_world,
            zero_stage=zero_stage(self.config),
            precision=self.config.training.precision,
            data=self.loader.state(self.ranks.gather),
            heldout=self._heldout_state(),
            guard=self.guard.state,
        )
        with self.watchdog.slowly("checkpoint"), self.monitor.pause("checkpoint"):
            self.checkpoints.save(self.engine, state, self._score, self._sound)

    def _finish_checkpoints(self) -> None:
        """Wait until what was saved is written, and tell what became of it."""
        with self.watchdog.slowly("checkpoint"):
            self.checkpoints.finish()
        self._tell_of_checkpoints()

    def _tell_of_checkpoints(self) -> None:
        for event in self.checkpoints.take_events():
            # The checkpoint may be one of a later step than the run is at now.
            self.monitor.event(self._done, event.kind, checkpoint=event.step, text=event.text)
