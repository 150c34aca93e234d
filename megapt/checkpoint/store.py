"""Saves the checkpoints of one run atomically, finds them and loads them."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import megapt
from megapt.checkpoint.events import Event, Events
from megapt.checkpoint.finding import Finder
from megapt.checkpoint.keeping import kept
from megapt.checkpoint.manifest import (
    FORMAT,
    FileRecord,
    Manifest,
    publish,
    read_manifest,
    remove,
    restore_replaced,
)
from megapt.checkpoint.remote import Copier, Copies
from megapt.checkpoint.state import (
    STATE,
    WEIGHTS,
    Saved,
    TrainerState,
    checkpoint_path,
    hidden_path,
    steps_saved,
)
from megapt.checkpoint.weights import moved_rows, open_weights
from megapt.checkpoint.writing import (
    Write,
    Writing,
    safetensors_file,
    torch_file,
)
from megapt.config import CheckpointConfig, ModelConfig
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.errors import CheckpointError, ConfigError
from megapt.files import write_json

FAILURES = 3
"""Failed saves in a row that end the run."""


@dataclass
class _Pending:
    """A checkpoint that is being written."""

    state: TrainerState
    score: float | None
    average: bool
    pruning: bool
    folder: Path
    """Hidden until it is complete."""
    writing: Writing


class Checkpoints:
    """The checkpoints of one run. All ranks call the same methods in the same order.

    If a save fails, for example on a full disk, the earlier checkpoints stay as they were. Training
    continues with a warning, because a later save may succeed. The run ends if `FAILURES` saves in
    a row fail, or if its last one fails.

    Args:
        folder: checkpoint folder of the run; it need not exist.
        config: when checkpoints are written and which are kept.
        model: model that the run trains.
        ranks: ranks of the job.
        run: digest that identifies the run; see `RunFolder.identity`.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        model: ModelConfig,
        ranks: Ranks,
        run: str = "",
    ) -> None:
        self._folder = folder
        self._run = run
        self._config = config
        self._model = model
        self._ranks = ranks
        self._latest: TrainerState | None = None
        self._pending: _Pending | None = None
        self._failures = 0
        self._failure = ""
        self._events = Events(ranks.main)
        copies = Copies(config.copy_to) if config.copy_to else None
        self._copier: Copier | None = None
        if copies is not None and ranks.main:
            self._copier = Copier(copies, config, config.async_save, self._warn_uncopied)
        self._finder = Finder(folder, ranks, self._events, copies, run)

    def take_events(self) -> list[Event]:
        """Return the events since the last call. Only the main rank has all of them."""
        return self._events.take()

    def save(
        self,
        engine: Engine,
        state: TrainerState,
        score: float | None = None,
        pruning: bool = True,
    ) -> float:
        """Save the state of training. The checkpoint appears under its name once it is complete.

        Args:
            engine: engine with the model.
            state: state of the trainer.
            score: validation score, lower is better, if there was a validation.
            pruning: whether older checkpoints may be removed; False if this one may be worse.

        Returns:
            Seconds for which training was blocked.

        Raises:
            CheckpointError: too many saves in a row have failed.
        """
        began = time.perf_counter()
        self._publish_pending()
        if state != self._latest:  # Equal if a run is resumed at its end.
            self._start_saving(engine, state, score, pruning)
        return time.perf_counter() - began

    def poll(self) -> bool:
        """Return whether this rank's part of a pending save is written, without waiting."""
        return self._pending is not None and self._pending.writing.done

    def settle(self, all_written: bool) -> None:
        """Publish the pending save if all ranks have written their parts.

        Args:
            all_written: whether `poll` returned True on all ranks.

        Raises:
            CheckpointError: too many saves in a row have failed.
        """
        if all_written:
            self._publish_pending()

    def finish(self) -> None:
        """Wait for a pending save, and for its copy.

        Raises:
            CheckpointError: the last save has failed.
        """
        self._publish_pending()
        if self._copier is not None:
            self._copier.finish()
        if self._failures:
            raise CheckpointError(self._failure)

    def _start_saving(
        self, engine: Engine, state: TrainerState, score: float | None, pruning: bool
    ) -> None:
        folder = hidden_path(checkpoint_path(self._folder, state.step))
        if self._failed(state.step, self._prepare(folder) if self._ranks.main else ""):
            return
        asynchronous = self._config.async_save
        taken = engine.state(folder, copying=asynchronous)
        files: dict[str, Write] = {name: torch_file(each) for name, each in taken.items()}
        taken.clear()
        weights = engine.average_state()
        average = weights is not None
        if weights is None:
            weights = engine.full_weights(self._ranks.main)
        if self._ranks.main:
            files[WEIGHTS] = safetensors_file(weights)
            files[STATE] = partial(write_json, value=state.model_dump())
        writing = Writing(folder, files)
        score = score if score is not None and math.isfinite(score) else None
        self._pending = _Pending(state, score, average, pruning, folder, writing)
        if asynchronous:
            writing.start()
        else:
            self._publish_pending()

    def _prepare(self, folder: Path) -> str:
        """Remove what killed runs have left and create `folder`; return the problem, or nothing."""
        try:
            for unfinished in self._folder.glob(".step-*"):
                shutil.rmtree(unfinished)
            folder.mkdir(parents=True)
        except OSError as error:
            return f"{error.filename or folder}: {error.strerror}"
        return ""

    def _publish_pending(self) -> None:
        """Wait until all ranks have written the pending save, and publish it."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        pending.writing.finish()
        parts = self._ranks.gather((pending.writing.records, pending.writing.problem))
        problem = next((problem for _, problem in parts if problem), "")
        if not problem and self._ranks.main:
            records = {name: file for records, _ in parts for name, file in records.items()}
            problem = self._publish(pending, records)
        if problem and self._ranks.main:
            shutil.rmtree(pending.folder, ignore_errors=True)
        if not self._failed(pending.state.step, problem):
            self._failures = 0
            self._latest = pending.state

    def _publish(self, pending: _Pending, files: dict[str, FileRecord]) -> str:
        """Publish a checkpoint, then remove older ones; return the problem, or nothing."""
        manifest = Manifest(
            format=FORMAT,
            megapt=megapt.__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            run=self._run,
            step=pending.state.step,
            score=pending.score,
            average=pending.average,
            files=files,
        )
        path = checkpoint_path(self._folder, pending.state.step)
        try:
            publish(pending.folder, path, manifest)
        except OSError as error:
            restore_replaced(self._folder)
            return f"{error.filename or path}: {error.strerror}"
        if self._copier is not None:
            self._copier.copy(manifest.step, path, manifest)
        if pending.pruning:
            self._prune(manifest.step)
        return ""

    def _prune(self, newest: int) -> None:
        """Remove the checkpoints that the policy does not keep.

        Also remove those of later steps than `newest`. The run has skipped them as corrupt and has
        resumed from an earlier checkpoint, so they no longer belong to it.
        """
        scores = {}
        for step in steps_saved(self._folder):
            path = checkpoint_path(self._folder, step)
            try:
                scores[step] = read_manifest(path).score
            except (ValueError, ConfigError):
                scores[step] = None
        keep = kept({step: score for step, score in scores.items() if step <= newest}, self._config)
        busy = self._copier.busy if self._copier is not None else set()
        for step in scores.keys() - keep.keys() - busy:
            path = checkpoint_path(self._folder, step)
            try:
                remove(path)
            except OSError as error:
                self._events.add(step, "unremoved", f"{path} cannot be removed: {error.strerror}")

    def _failed(self, step: int, problem: str) -> bool:
        """Return whether a save has failed on any rank, and warn of it.

        Raises:
            CheckpointError: too many saves in a row have failed.
        """
        if not self._ranks.any(bool(problem)):
            return False
        self._failures += 1
        problem = next(filter(None, self._ranks.gather(problem)))
        newest = f"step {self._latest.step}" if self._latest else "none"
        self._failure = (
            f"the checkpoint of step {step} could not be written ({problem}); the last one is "
            f"{newest}"
        )
        if self._failures == FAILURES:
            raise CheckpointError(f"{FAILURES} times in a row: {self._failure}")
        self._events.add(step, "unsaved", f"{self._failure}; training continues")
        return True

    def _warn_uncopied(self, step: int, problem: str) -> None:
        text = f"the checkpoint of step {step} was not copied: {problem}"
        self._events.add(step, "uncopied", text)

    def newest(self, before: int | None = None) -> Saved | None:
        """Return the newest intact checkpoint; None if there is none.

        Corrupt ones are skipped with a warning. If no intact one is left, the newest intact copy is
        fetched.

        Args:
            before: consider only checkpoints of earlier steps than this.

        Raises:
            MegaptError: on all ranks; see `Finder.newest`.
        """
        return self._finder.newest(before, fetching=self._config.resume == "auto")

    def load(self, saved: Saved, engine: Engine) -> None:
        """Load weights and optimizer states. The ranks and the ZeRO stage may have changed.

        Args:
            saved: checkpoint from `newest` or `branch_start`.
            engine: engine with the model.

        Raises:
            ConfigError: the states do not fit the engine.
            DamagedError: the checkpoint is incomplete or corrupt.
        """
        engine.load_state(saved.path, moved_rows(saved.path, self._model))
        average = read_manifest(saved.path).average
        engine.load_average(open_weights(saved.path, self._model) if average else None)
        if saved.path.parent == self._folder:
            self._latest = saved.state
