"""A run before its engine is built: checked, opened, and positioned at its next step."""

from __future__ import annotations

from dataclasses import dataclass, field

from megapt.checkpoint import Checkpoints, Saved, branch_start
from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.data import AnyCorpus, Batch, BatchMaker, Loader, LoaderState, open_corpora
from megapt.data.budget import Spent
from megapt.data.state import join_skipped
from megapt.distributed.deepspeed_config import check_nvme
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.evaluation.validation import validation_maker
from megapt.model.compilation import check_compiler
from megapt.monitoring.metrics import read_metrics
from megapt.monitoring.trackers import check_trackers
from megapt.resilience.guard import Guard
from megapt.training.branch import check_branch
from megapt.training.checks import check_platform, check_targets
from megapt.training.parts import RunParts, find_parts


@dataclass
class TrainingState:
    """Progress of a run; the training loop updates it."""

    step: int = 0
    """Steps completed."""
    spent: Spent = field(default_factory=Spent)
    """Amounts spent so far on all budget axes."""
    score: float | None = None
    """`checkpoint.metric` of the last validation; None before one and after a rollback."""


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs except its model. Nothing is written yet."""

    parts: RunParts
    corpus: AnyCorpus
    folder: RunFolder
    maker: BatchMaker
    """Makes the training batches."""
    validation: BatchMaker
    """Makes the validation batches."""
    loader: Loader[Batch]
    """This rank's share of the training batches."""
    checkpoints: Checkpoints
    guard: Guard
    saved: Saved | None
    """Checkpoint from which the run resumes or branches; None for a new run."""
    state: TrainingState

    def validation_state(self) -> LoaderState:
        """Return the validation shards that any rank has skipped; nothing else can change."""
        stream = self.validation.stream
        skipped = join_skipped(self.parts.ranks.gather(stream.skipped))
        return LoaderState(stream.identity, skipped=skipped)


def open_corpus(config: RunConfig, ranks: Ranks) -> AnyCorpus:
    """Open the corpora of a run, without reading a shard.

    Raises:
        MegaptError: on every rank, if one of them cannot open a corpus; see `open_corpora`.
    """
    with ranks.shared_errors():
        return open_corpora(config.data)


def verify_corpus(corpus: AnyCorpus, config: RunConfig, ranks: Ranks) -> None:
    """Check the tokenizer and the shards of a corpus; the ranks share the work of hashing.

    Raises:
        DamagedError: on every rank, if any file is missing or corrupt.
        MegaptError: on every rank, if one of them cannot read it.
    """
    reading = config.data.reading
    with ranks.shared_errors():
        corpus.tokenizer()  # The run folder gets a copy; reading it checks its hash.
        if reading.verify == "full" and not reading.hashes_on_use:
            corpus.verify(ranks.rank, ranks.world)


def prepare(
    config: RunConfig,
    ranks: Ranks,
    origins: Origins,
    corpus: AnyCorpus | None = None,
    path: str = "objective",
) -> PreparedRun:
    """Check a run and its input, and return the run positioned at its next step.

    Args:
        config: configuration of the run.
        ranks: ranks of the job.
        origins: places of the settings, for error messages.
        corpus: corpus that several runs share, opened and verified; None to open it here.
        path: dotted path of the objective's section in the configuration, for error messages.

    Raises:
        ConfigError: if any input is wrong; nothing is written then.
        DamagedError: if a file of the corpus or of the run is missing or corrupt.
        UnavailableError: if storage does not answer.
    """
    check_platform()
    shared = corpus is not None
    if corpus is None:
        corpus = open_corpus(config, ranks)
    parts = find_parts(config, ranks, origins, corpus, path)
    ranks = parts.ranks
    check_nvme(config, origins)
    if config.training.compile:
        check_compiler(ranks.device)
    check_trackers(parts.trackers, ranks, origins)
    folder = RunFolder(config.output)
    folder.check(config, corpus.fingerprint)
    if not shared:
        verify_corpus(corpus, config, ranks)
    pad = corpus.vocabulary.pad
    assert parts.stream is not None  # The corpus can be read.
    maker = BatchMaker(
        parts.stream, parts.objective, pad, config.seed, parts.rows, parts.batches, parts.lengths
    )
    validation = validation_maker(corpus, config.data, parts.objective, parts.rows)
    loader = Loader(
        maker,
        global_batch_size=parts.batches,
        micro_batch_size=config.training.micro_batch_size,
        rank=ranks.data_rank,
        world=ranks.data_world,
    )
    checkpoints = Checkpoints(
        folder.checkpoints,
        config.checkpoint,
        config.model,
        ranks,
        folder.identity(config, corpus.fingerprint),
    )
    # This comes before any shard is read: the checkpoint says which shards the run skips.
    saved = _find_checkpoint(parts, folder, checkpoints)
    guard, state = _initial_state(parts, folder, saved)
    if saved is not None:
        loader.resume(saved.state.data)
        validation.stream.skip(saved.state.validation.skipped)
    else:  # A resumed run does not read these windows again.
        check_targets(maker, parts.objective, ranks, origins, path)
    validated = config.training.validation_windows
    check_targets(validation, parts.objective, ranks, origins, path, validated)
    return PreparedRun(
        parts, corpus, folder, maker, validation, loader, checkpoints, guard, saved, state
    )


def _find_checkpoint(parts: RunParts, folder: RunFolder, checkpoints: Checkpoints) -> Saved | None:
    """Return the checkpoint from which the run resumes or branches, None for a new run."""
    config = parts.config
    if folder.finished:
        return None
    saved = checkpoints.newest()
    if saved is None and config.branch is not None:
        saved = branch_start(config.branch, parts.ranks)
        parent = RunFolder(config.branch.run).load_config()
        check_branch(parent, config, saved.state, parts.origins)
    if saved is not None:
        state = saved.state
        if parts.batches.first_window(state.step) != state.data.windows:
            raise ConfigError(
                f"{saved.path}: holds {state.data.windows} windows after step {state.step}, which "
                f"does not match the batches of this run"
            )
    return saved


def _initial_state(
    parts: RunParts, folder: RunFolder, saved: Saved | None
) -> tuple[Guard, TrainingState]:
    """Return the guard and the progress with which the run starts or resumes."""
    faults, scaled = parts.config.faults, parts.config.training.precision == "fp16"
    if saved is None:
        return Guard(faults, scaled=scaled), TrainingState()
    state = TrainingState(saved.state.step, Spent(**saved.state.spent))
    if saved.path.parent != folder.checkpoints:  # A branch starts its own statistics.
        return Guard(faults, scaled=scaled), state
    records = read_metrics(folder.metrics_file)
    scores = [
        record.get(parts.config.checkpoint.metric)
        for record in records
        if record["split"] == "valid" and record["step"] <= state.step
    ]
    state.score = scores[-1] if scores else None
    return Guard(faults, saved.state.guard, scaled), state
