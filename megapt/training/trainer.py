"""Trains one run: from a configuration to checkpoints and metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import torch

from megapt.config import ConfigError, Origins, RunConfig
from megapt.data import AnyCorpus, BatchMaker, Loader, LoaderState, derive_key
from megapt.data.state import join_skipped
from megapt.model import training_flops
from megapt.objectives import build_objective
from megapt.training.budget import Spent
from megapt.training.checkpoint import TrainerState, load_checkpoint, save_checkpoint, saved_state
from megapt.training.distributed import Ranks
from megapt.training.engine import Engine
from megapt.training.files import write_json
from megapt.training.losses import Scores, factors
from megapt.training.metrics import MetricsWriter
from megapt.training.progress import TrainingProgress
from megapt.training.run_folder import RunFolder, objective_context
from megapt.training.schedule import rate_factor
from megapt.training.setup import (
    build_model,
    check_attention,
    check_batches,
    check_size,
    check_targets,
    choose_rows,
    open_corpus,
    training_stream,
)
from megapt.training.steps import StepData, agreed_steps
from megapt.training.stopping import RunInterrupted, StopRequested, StopRequests
from megapt.training.validation import evaluate, heldout_maker


class TrainingError(Exception):
    """Training cannot go on, through no fault of the configuration."""


class Trainer:
    """One run on the ranks of this job.

    Args:
        config: of the run.
        ranks: of the job.
        origins: of the configuration, for errors.
        corpus: opened already, if several runs share it.
        path: of the objective's section in the configuration, for errors.

    Raises:
        ConfigError: before anything is written, for whatever is wrong with the input.
    """

    def __init__(
        self,
        config: RunConfig,
        ranks: Ranks,
        origins: Origins,
        corpus: AnyCorpus | None = None,
        path: str = "objective",
    ) -> None:
        check_batches(config, ranks.world, origins)
        self.config = config
        self.ranks = ranks
        self.corpus = corpus if corpus is not None else open_corpus(config, ranks)
        self.folder = RunFolder(config.output)
        self.folder.check(config, self.corpus.fingerprint)
        self.objective = build_objective(
            config.objective, objective_context(self.corpus, config), origins, path
        )
        stream = training_stream(self.corpus, config)
        check_size(stream, config, origins)
        check_attention(config, self.objective, ranks.device, origins)
        rows = choose_rows(config, self.objective, origins)
        pad = self.corpus.vocabulary.pad
        self.maker = BatchMaker(
            stream, self.objective, pad, config.seed, rows, config.training.global_batch
        )
        self.heldout = heldout_maker(self.corpus, config.data, self.objective, rows)
        self.loader = Loader(
            self.maker,
            global_batch=config.training.global_batch,
            micro_batch=config.training.micro_batch,
            rank=ranks.rank,
            world=ranks.world,
        )
        self._done, self._spent = 0, Spent()
        self._stops = StopRequests()
        # Before anything is read, so that no shard is tried which the run leaves out.
        self._resume()
        if not self._done:  # Later the run would not come by these windows again.
            check_targets(self.maker, self.objective, ranks, origins, path)
        validated = config.training.validation_windows
        check_targets(self.heldout, self.objective, ranks, origins, path, validated)

    def _resume(self) -> None:
        """Go on where the newest checkpoint stands, unless the run is finished."""
        if self.folder.finished:
            return
        global_batch = self.config.training.global_batch
        state = saved_state(self.folder.checkpoints, self.ranks, global_batch)
        if state is not None:
            self._done, self._spent = state.step, Spent(**state.spent)
            self.loader.resume(state.data)
            self.heldout.stream.skip(state.heldout.skipped)

    def train(self) -> dict[str, Any]:
        """Train to the end of the budget, from the newest checkpoint if there is one.

        Returns:
            The summary that is also written to the run folder: steps, spent, held-out scores.

        Raises:
            ConfigError: on every rank, if one of them cannot read its part of the corpus.
            RunInterrupted: after SIGINT or SIGTERM; a checkpoint was written.
            TrainingError: if the loss is not finite, or the corpora are used up.
        """
        if self.folder.finished:
            return self.folder.summary()
        size, attention = self.corpus.vocabulary.size, self.config.training.attention
        model = build_model(self.config, self.objective, size, attention)
        self.engine = Engine(model, self.config, self.ranks)
        if self._done:
            load_checkpoint(self.engine.deepspeed, self.folder.checkpoints, self._done)
        self.ranks.barrier()  # A slower rank still looks whether the folder is free.
        if self.ranks.main:
            self.folder.create(self.config, self.corpus, self.ranks.world)
        self.ranks.barrier()
        metrics = MetricsWriter(self.folder.folder, self._done) if self.ranks.main else None
        progress = TrainingProgress(self.folder.folder.name, self.ranks.main)
        progress.begin(self._share())
        try:
            with self._stops.heard():
                self._loop(metrics, progress)
                heldout = self._validate(metrics)
            self._checkpoint()
            summary = {
                "steps": self._done,
                "spent": self._spent.as_dict(),
                "data": self.loader.state(self.ranks.gather).to_json(),
                "tokens_per_second": self._spent.speed,
                "heldout": heldout,
            }
            if self.ranks.main:
                write_json(self.folder.summary_file, summary)
            return summary
        finally:
            progress.close()
            if metrics is not None:
                metrics.close()
            self.engine.close()

    def _share(self) -> float:
        return self._spent.share(self.config.training.budget)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self._done % every == 0

    def _loop(self, metrics: MetricsWriter | None, progress: TrainingProgress) -> None:
        training, heads = self.config.training, self.objective.heads
        workers, ranks, stops = self.config.data.workers, self.ranks, self._stops
        with closing(agreed_steps(self.loader, workers, heads, ranks, stops)) as steps:
            while self._share() < 1.0:
                began = time.perf_counter()
                values = self._step(self._next(steps))
                elapsed = time.perf_counter() - began
                seconds, stop = ranks.sum([elapsed * ranks.main, stops.received])
                self._spent = self._spent.plus(Spent(wall_clock=seconds))
                self._done += 1
                end = self._share() >= 1.0
                # The norm is that of all ranks, so that all of them agree.
                sound = math.isfinite(values[1]["gradient_norm"])
                if self._is_due(training.log_every) or end or not sound:
                    self._log(values, metrics, progress)
                if end:
                    break  # The end validates and saves by itself.
                if self._is_due(training.validate_every):
                    self._validate(metrics)
                if stop or self._is_due(self.config.checkpoint.every):
                    self._checkpoint()
                if stop:
                    raise self._interrupted()

    def _next(self, steps: Iterator[StepData]) -> StepData:
        """Return the next step's data, or save what is learnt and say why there is none.

        All ranks end here together, so all can save.
        """
        try:
            return next(steps)
        except (ConfigError, StopRequested, StopIteration) as end:
            if self._done:
                self._checkpoint()
            if isinstance(end, StopRequested):
                raise self._interrupted() from None
            if isinstance(end, ConfigError):
                raise
            raise TrainingError(
                f"{self.folder.folder}: the corpora are used up after step {self._done}, at "
                f"{self._share():.1%} of the budget, where a checkpoint was written; raise their "
                f"max_epochs or lower training.budget.amount"
            ) from None

    def _interrupted(self) -> RunInterrupted:
        return RunInterrupted(f"{self.folder.folder}: stopped after step {self._done}")

    def _step(self, data: StepData) -> tuple[Scores, dict[str, float]]:
        """Do one update and return its scores and numbers."""
        heads, counts = self.objective.heads, data.counts
        rate = self.config.optimizer.lr * rate_factor(self.config.schedule, self._share())
        scores = Scores(heads)
        norm = 0.0
        of_part = factors(heads, data.totals)
        for i, batch in enumerate(data.micro_batches):
            # Dropout is torch's; its masks belong to (seed, first window of the micro-batch).
            torch.manual_seed(derive_key(self.config.seed, "dropout", batch.key) >> 1)
            output = self.engine.deepspeed(batch.to(self.ranks.device), of_part)
            self.engine.backward(output.loss)
            norm = self.engine.step(rate, last=i == len(data.micro_batches) - 1)
            scores.add(output.parts, batch)
        flops = training_flops(self.config.model, heads, counts, self.corpus.vocabulary.size)
        self._spent = self._spent.plus(
            Spent(counts.raw_tokens, counts.positions, counts.targets, flops)
        )
        numbers = {"learning_rate": rate, "gradient_norm": norm}
        return scores, {**numbers, "packing_efficiency": counts.positions / max(counts.slots, 1)}

    def _log(
        self,
        values: tuple[Scores, dict[str, float]],
        metrics: MetricsWriter | None,
        progress: TrainingProgress,
    ) -> None:
        scores, numbers = values
        reduced = scores.reduce(self.ranks)
        loss = reduced.get("loss")  # None: nothing in the whole step was to be predicted
        if not (math.isfinite(loss or 0.0) and math.isfinite(numbers["gradient_norm"])):
            raise TrainingError(
                f"{self.folder.folder}: step {self._done}: loss {loss}, gradient "
                f"norm {numbers['gradient_norm']}; a lower optimizer.lr or a longer "
                f"schedule.warmup usually helps"
            )
        speed = self._spent.speed
        read = self.loader.state(self.ranks.gather)
        if metrics is not None:
            record = {
                **reduced,
                **numbers,
                **self._spent.as_dict(),
                **self.maker.stream.epochs(read.windows),
                "skipped_shards": read.skipped_shards,
                "tokens_per_second": speed,
            }
            metrics.write("train", self._done, record)
        note = f"{speed:,.0f} tokens/s"
        if loss is not None:
            note = f"loss {loss:.3f}  {note}"
        progress.update(self._share(), self._done, note)

    def _validate(self, metrics: MetricsWriter | None) -> dict[str, float]:
        training = self.config.training
        scores = evaluate(
            self.engine.deepspeed,
            self.heldout,
            windows=training.validation_windows,
            micro_batch=training.micro_batch,
            ranks=self.ranks,
        )
        skipped = self._heldout_state().skipped_shards
        if metrics is not None:
            record = {**scores, **self._spent.as_dict(), "skipped_shards": skipped}
            metrics.write("valid", self._done, record)
        return scores

    def _heldout_state(self) -> LoaderState:
        """Return which held-out shards some rank has left out; nothing else of it changes."""
        stream = self.heldout.stream
        skipped = join_skipped(self.ranks.gather(stream.skipped))
        return LoaderState(stream.identity, skipped=skipped)

    def _checkpoint(self) -> None:
        save_checkpoint(
            self.engine.deepspeed,
            self.folder.checkpoints,
            TrainerState(
                step=self._done,
                spent=self._spent.as_dict(),
                ranks=self.ranks.world,
                data=self.loader.state(self.ranks.gather),
                heldout=self._heldout_state(),
            ),
            self.ranks,
            self.config.checkpoint.keep_last,
        )
