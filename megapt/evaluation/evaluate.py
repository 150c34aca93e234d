"""Scores of a run on the validation set, with the baseline that ignores the input."""

from __future__ import annotations

from megapt.checkpoint.run_folder import RunFolder
from megapt.data import AnyCorpus, BatchMaker, Corpus, open_corpora
from megapt.data.schedules import training_stream
from megapt.distributed.mesh import Mesh
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.evaluation.loading import LoadedRun, load_run
from megapt.evaluation.unigram import unigram_scores
from megapt.evaluation.validation import evaluate, validation_maker

Scores = dict[str, float]

_TRAIN_WINDOWS = 4
"""Training windows that the baseline counts per validation window."""


def validation_scores(
    run: LoadedRun, corpus: AnyCorpus, windows: int, ranks: Ranks
) -> tuple[Scores, Scores]:
    """Return the scores of the run and of its unigram baseline on the same targets.

    Args:
        run: the trained run.
        corpus: the corpus that it was trained on.
        windows: number of validation windows; all of them if there are fewer.
        ranks: the ranks that share the windows.

    Returns:
        Both with the keys of `evaluation.losses.Scores.reduce`. The baseline also has
        `targets/HEAD`, the number of validation targets of each head.
    """
    validation = validation_maker(corpus, run.config.data, run.objective)
    scores = evaluate(
        run.model,
        validation,
        windows=windows,
        micro_batch_size=run.config.training.micro_batch_size,
        ranks=ranks,
    )
    vocabulary = corpus.vocabulary
    stream = training_stream(corpus, run.config)
    unigram = unigram_scores(
        BatchMaker(stream, run.objective, vocabulary.pad, run.config.seed),
        validation,
        train_windows=_TRAIN_WINDOWS * windows,
        validation_windows=windows,
        vocabulary=vocabulary.size,
    )
    return scores, unigram


def evaluate_run(folder: str, windows: int, corpus_folder: str | None) -> dict[str, Scores]:
    """Return the scores `model` and `unigram` of the run in `folder`, with the same keys.

    Args:
        folder: the run folder.
        windows: number of validation windows.
        corpus_folder: the current place of the corpus; None if the run read it there.

    Raises:
        ConfigError: if the run or its corpus does not exist, or the corpus is a different one.
        DamagedError: if a file of either is missing or corrupt.
        UnavailableError: if storage is unavailable.
    """
    run = load_run(folder)
    data = run.config.data
    corpus = Corpus(corpus_folder, data.reading) if corpus_folder else open_corpora(data)
    expected = RunFolder(folder).fingerprint
    if corpus.fingerprint != expected:
        raise ConfigError(
            f"{corpus.where}: is not the corpus that {folder} was trained on (fingerprint "
            f"{corpus.fingerprint[:12]}…, not {expected[:12]}…)"
        )
    scores, unigram = validation_scores(run, corpus, windows, Ranks(0, Mesh(), run.device))
    return {"model": scores, "unigram": {name: unigram[name] for name in scores}}
