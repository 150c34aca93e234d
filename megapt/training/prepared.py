"""A run before its engine: checked, opened, and at the place where it goes on."""

from __future__ import annotations

from megapt.checkpoint import Checkpoints, Saved, branch_start
from megapt.checkpoint.run_folder import RunFolder, objective_context
from megapt.config import Origins, RunConfig, check_batches, check_groups
from megapt.data import AnyCorpus, BatchMaker, BatchSchedule, Loader, open_corpora
from megapt.data.budget import Spent
from megapt.data.schedules import batch_schedule, length_schedule, training_stream
from megapt.distributed.deepspeed_config import check_nvme
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.evaluation.validation import heldout_maker
from megapt.model.compilation import check_compiler
from megapt.monitoring.metrics import read_metrics
from megapt.monitoring.prometheus import check_prometheus
from megapt.objectives import build_objective
from megapt.resilience.guard import Guard
from megapt.training.branch import check_branch
from megapt.training.checks import (
    check_attention,
    check_engine,
    check_generators,
    check_metric,
    check_platform,
    check_segments,
    check_size,
    check_targets,
    choose_rows,
)


def open_corpus(config: RunConfig, ranks: Ranks) -> AnyCorpus:
    """Open and verify what the run reads; the ranks share the work of hashing.

    Raises:
        MegaptError: on every rank, if it cannot be opened on one; see `open_corpora`.
        DamagedError: on every rank, if any shard is missing or damaged.
    """
    reading = config.data.reading
    with ranks.together():
        corpus = open_corpora(config.data)
        corpus.tokenizer()  # It goes into the run folder; it must be the corpus's own.
        if reading.verify == "full" and not reading.hashes_on_use:
            corpus.verify(ranks.rank, ranks.world)
    return corpus


class PreparedRun:
    """What a run is made of. Nothing is written yet.

    Args:
        config: of the run.
        ranks: of the job.
        origins: of the configuration, for errors.
        corpus: opened already, if several runs share it.
        path: of the objective's section in the configuration, for errors.

    Raises:
        ConfigError: before anything is written, for whatever is wrong with the input.
        DamagedError: if a file of the corpus or of the run is missing or damaged.
        UnavailableError: if storage is away.
    """

    def __init__(
        self,
        config: RunConfig,
        ranks: Ranks,
        origins: Origins,
        corpus: AnyCorpus | None = None,
        path: str = "objective",
    ) -> None:
        check_platform()
        check_groups(config, ranks.world, origins)
        self.ranks = ranks = ranks.arranged(config.parallel.sequence)
        check_batches(config, ranks.world, origins)
        self.config = config
        self.origins = origins
        batches, lengths = batch_schedule(config, origins), length_schedule(config, origins)
        check_engine(config, ranks, origins)
        check_nvme(config, origins)
        self.corpus = corpus if corpus is not None else open_corpus(config, ranks)
        self.folder = RunFolder(config.output)
        self.folder.check(config, self.corpus.fingerprint)
        check_prometheus(config, ranks, origins)
        self.objective = build_objective(
            config.objective, objective_context(self.corpus, config), origins, path
        )
        stream = training_stream(self.corpus, config)
        check_size(stream, config, batches, origins)
        check_attention(config, self.objective, ranks, origins)
        check_segments(config, self.objective, origins)
        check_generators(config, self.objective, ranks, origins)
        if config.training.compile:
            check_compiler(ranks.device)
        check_metric(config, self.objective, origins)
        rows = choose_rows(config, self.objective, origins)
        pad = self.corpus.vocabulary.pad
        self.maker = BatchMaker(stream, self.objective, pad, config.seed, rows, batches, lengths)
        self.heldout = heldout_maker(self.corpus, config.data, self.objective, rows)
        self.loader = Loader(
            self.maker,
            global_batch=batches,
            micro_batch=config.training.micro_batch,
            rank=ranks.data_rank,
            world=ranks.data_world,
        )
        self.checkpoints = Checkpoints(
            self.folder.checkpoints,
            config.checkpoint,
            config.model,
            ranks,
            self.folder.identity(config, self.corpus.fingerprint),
        )
        self.guard = Guard(config.faults, scaled=self._scaled)
        self._done, self._spent = 0, Spent()
        self._score: float | None = None
        # Before anything is read, so that no shard is tried which the run leaves out.
        self._saved = self._begin(batches)
        if not self._done:  # Later the run would not come by these windows again.
            check_targets(self.maker, self.objective, ranks, origins, path)
        validated = config.training.validation_windows
        check_targets(self.heldout, self.objective, ranks, origins, path, validated)

    def _begin(self, batches: BatchSchedule) -> Saved | None:
        """Return the checkpoint that the run goes on from, if there is one."""
        if self.folder.finished:
            return None
        saved = self.checkpoints.newest()
        if saved is None and self.config.branch is not None:
            saved = branch_start(self.config.branch, self.ranks)
            parent = RunFolder(self.config.branch.run).load_config()
            check_branch(parent, self.config, saved.state, self.origins)
        if saved is None:
            return None
        state = saved.state
        if batches.first_window(state.step) != state.data.windows:
            raise ConfigError(
                f"{saved.path}: holds {state.data.windows} windows after step {state.step}, not "
                f"those of this run's batches"
            )
        self._done, self._spent = state.step, Spent(**state.spent)
        if saved.path.parent == self.folder.checkpoints:  # A branch is judged by its own.
            self.guard = Guard(self.config.faults, state.guard, self._scaled)
            self._score = self._last_score()
        self.loader.resume(state.data)
        self.heldout.stream.skip(state.heldout.skipped)
        return saved

    def _last_score(self) -> float | None:
        """Return the score of the last validation before the run goes on."""
        records = read_metrics(self.folder.metrics_file)
        scores = [
            record.get(self.config.checkpoint.metric)
            for record in records
            if record["split"] == "valid" and record["step"] <= self._done
        ]
        return scores[-1] if scores else None

    @property
    def _scaled(self) -> bool:
        return self.config.training.precision == "fp16"
