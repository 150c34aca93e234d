"""Trains one run: from a configuration to checkpoints and metrics."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

import torch

from megapt.config import ConfigError, Origins, RunConfig
from megapt.data import (
    AnyCorpus,
    Batch,
    BatchMaker,
    Counts,
    Loader,
    LoaderState,
    derive_key,
)
from megapt.data.state import Skipped, join_skipped
from megapt.model import training_flops
from megapt.objectives import build_objective
from megapt.training.budget import Spent
from megapt.training.checkpoint import load_checkpoint, save_checkpoint, saved_state
from megapt.training.distributed import Ranks
from megapt.training.engine import Engine
from megapt.training.files import write_json
from megapt.training.losses import Scores, head_counts, weighted_loss
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
from megapt.training.validation import evaluate, heldout_maker


class TrainingError(Exception):
    """Training cannot go on, through no fault of the configuration."""


class RunInterrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop (SIGINT or SIGTERM) and left a checkpoint."""


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a step is always finished."""
    received: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Progressed:
    """Where a run stands; with DeepSpeed's state, all that a checkpoint holds."""

    step: int = 0
    spent: Spent = field(default_factory=Spent)


def _shards(skipped: Skipped) -> int:
    """Return how many shards are left out."""
    return sum(map(len, skipped.values()))


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
            config.objective, objective_context(self.corpus, config.data.window), origins, path
        )
        stream = training_stream(self.corpus, config)
        check_size(stream, config, origins)
        check_attention(config, self.objective, ranks.device, origins)
        rows = choose_rows(config, self.objective, origins)
        pad = self.corpus.vocabulary.pad
        self.maker = BatchMaker(stream, self.objective, pad, config.seed, rows)
        self.heldout = heldout_maker(self.corpus, config.data, self.objective, rows)
        self.loader = Loader(
            self.maker,
            global_batch=config.training.global_batch,
            micro_batch=config.training.micro_batch,
            rank=ranks.rank,
            world=ranks.world,
        )
        self._at = _Progressed()
        # Before anything is read, so that no shard is tried which the run leaves out.
        self._resume()
        if not self._at.step:  # Later the run would not come by these windows again.
            check_targets(self.maker, ranks, origins, path)
        check_targets(self.heldout, ranks, origins, path, config.training.validation_windows)

    def _resume(self) -> None:
        """Go on where the newest checkpoint stands, unless the run is finished."""
        state = None if self.folder.finished else saved_state(self.folder.checkpoints, self.ranks)
        if state is not None:
            self._at = _Progressed(state["step"], Spent(**state["spent"]))
            self.loader.resume(LoaderState.from_json(state["data"]))
            self.heldout.stream.skip(LoaderState.from_json(state["heldout"]).skipped)

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
        if self._at.step:
            load_checkpoint(self.engine.deepspeed, self.folder.checkpoints, self._at.step)
        self.ranks.barrier()  # A slower rank still looks whether the folder is free.
        if self.ranks.main:
            self.folder.create(self.config, self.corpus, self.ranks.world)
        self.ranks.barrier()
        metrics = MetricsWriter(self.folder.folder, self._at.step) if self.ranks.main else None
        progress = TrainingProgress(self.folder.folder.name, self.ranks.main)
        progress.begin(self._share())
        try:
            with _stop_requests() as stops:
                self._loop(metrics, progress, stops)
                heldout = self._validate(metrics)
            self._checkpoint()
            summary = {
                "steps": self._at.step,
                "spent": self._at.spent.as_dict(),
                "data": self.loader.state(self.ranks.gather).to_json(),
                "tokens_per_second": self._speed(),
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
        return self._at.spent.share(self.config.training.budget)

    def _speed(self) -> float:
        """Raw tokens a second over the whole run."""
        spent = self._at.spent
        return spent.raw_tokens / spent.wall_clock if spent.wall_clock else 0.0

    def _loop(
        self, metrics: MetricsWriter | None, progress: TrainingProgress, stops: list[int]
    ) -> None:
        training = self.config.training
        with closing(self.loader.iterate(self.config.data.workers)) as batches:
            while self._share() < 1.0:
                began = time.perf_counter()
                values = self._step(*self._next(batches))
                elapsed = time.perf_counter() - began
                seconds, stop = self.ranks.sum([elapsed * self.ranks.main, bool(stops)])
                self._at.spent = self._at.spent.plus(Spent(wall_clock=seconds))
                self._at.step += 1
                step = self._at.step
                done = self._share() >= 1.0
                # The norm is that of all ranks, so that all of them agree.
                sound = math.isfinite(values[1]["gradient_norm"])
                if step % training.log_every == 0 or done or not sound:
                    self._log(values, metrics, progress)
                if done:
                    break  # The end validates and saves by itself.
                if training.validate_every and step % training.validate_every == 0:
                    self._validate(metrics)
                if stop or (training.checkpoint_every and step % training.checkpoint_every == 0):
                    self._checkpoint()
                if stop:
                    raise RunInterrupted(f"{self.folder.folder}: stopped after step {step}")

    def _next(self, batches: Iterator[tuple[int, list[Batch]]]) -> tuple[list[Batch], str]:
        """Return the next step's micro-batches, and why they cannot be read if they cannot."""
        try:
            following = next(batches, None)
        except ConfigError as error:
            return [], str(error)
        if following is None:
            self._checkpoint()
            raise TrainingError(
                f"{self.folder.folder}: the corpora are used up after step {self._at.step}, at "
                f"{self._share():.1%} of the budget, where a checkpoint was written; raise their "
                f"max_epochs or lower training.budget.amount"
            )
        return following[1], ""

    def _step(self, micro_batches: list[Batch], problem: str) -> tuple[Scores, dict[str, float]]:
        """Do one update and return its scores and numbers.

        Raises:
            ConfigError: on every rank, if one of them has a problem.
        """
        heads = self.objective.heads
        mine = sum((batch.counts for batch in micro_batches), Counts())
        problems, *summed = self.ranks.sum(
            [bool(problem), *head_counts(micro_batches, heads), *astuple(mine)]
        )
        if problems:
            if not problem:
                self.loader.put_back()  # Another rank has nothing for this step.
            if self._at.step:
                self._checkpoint()  # All ranks are here still, so nothing learnt is lost.
            self.ranks.agree(problem)
        totals, counts = summed[: len(heads)], Counts(*map(int, summed[len(heads) :]))
        rate = self.config.optimizer.lr * rate_factor(self.config.schedule, self._share())
        scores = Scores(heads)
        norm = 0.0
        for i, batch in enumerate(micro_batches):
            # Dropout is torch's; its masks belong to (seed, first window of the micro-batch).
            torch.manual_seed(derive_key(self.config.seed, "dropout", batch.key) >> 1)
            sums = self.engine.deepspeed(batch.to(self.ranks.device))
            self.engine.backward(weighted_loss(sums, heads, totals))
            norm = self.engine.step(rate, last=i == len(micro_batches) - 1)
            scores.add(sums, batch)
        flops = training_flops(self.config.model, heads, counts, self.corpus.vocabulary.size)
        self._at.spent = self._at.spent.plus(
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
        if not (math.isfinite(reduced["loss"]) and math.isfinite(numbers["gradient_norm"])):
            raise TrainingError(
                f"{self.folder.folder}: step {self._at.step}: loss {reduced['loss']}, gradient "
                f"norm {numbers['gradient_norm']}; a lower optimizer.lr or a longer "
                f"schedule.warmup usually helps"
            )
        speed = self._speed()
        read = self.loader.state(self.ranks.gather)
        if metrics is not None:
            record = {
                **reduced,
                **numbers,
                **self._at.spent.as_dict(),
                **self.maker.stream.epochs(read.windows),
                "skipped_shards": _shards(read.skipped),
                "tokens_per_second": speed,
            }
            metrics.write("train", self._at.step, record)
        note = f"loss {reduced['loss']:.3f}  {speed:,.0f} tokens/s"
        progress.update(self._share(), self._at.step, note)

    def _validate(self, metrics: MetricsWriter | None) -> dict[str, float]:
        training = self.config.training
        scores = evaluate(
            self.engine.deepspeed,
            self.heldout,
            windows=training.validation_windows,
            micro_batch=training.micro_batch,
            ranks=self.ranks,
        )
        skipped = _shards(self._heldout_state().skipped)
        if metrics is not None:
            record = {**scores, **self._at.spent.as_dict(), "skipped_shards": skipped}
            metrics.write("valid", self._at.step, record)
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
            self._at.step,
            {
                "spent": self._at.spent.as_dict(),
                "ranks": self.ranks.world,
                "data": self.loader.state(self.ranks.gather).to_json(),
                "heldout": self._heldout_state().to_json(),
            },
            self.ranks,
            self.config.training.keep_checkpoints,
        )
