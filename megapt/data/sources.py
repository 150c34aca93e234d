"""The text of a run: one corpus, or several in a mixture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from data_prep.tokenizers import Tokenizer
from data_prep.vocabulary import Vocabulary
from megapt.config import DataConfig, MixtureConfig
from megapt.data.batch_schedule import BatchSchedule, GlobalBatch, as_schedule
from megapt.data.corpus import Corpus
from megapt.data.mixture import Member, Mixture, Stage, temperature_weights
from megapt.data.mixture_stream import MixtureStream
from megapt.data.stream import Stream, WindowStream
from megapt.errors import ConfigError

SplitName = Literal["train", "valid"]


class TextFacts(Protocol):
    """Facts about the training text of a run, also when it cannot be read on this machine."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of its tokenizer."""

    @property
    def labels(self) -> Sequence[str]:
        """Names of the document classes."""

    @property
    def documents(self) -> int:
        """Number of training documents; 0 if unknown."""

    @property
    def tokens(self) -> int:
        """Number of tokens of the training text; 0 if unknown."""

    @property
    def unlabeled(self) -> int:
        """Number of training documents without a class."""

    @property
    def label_counts(self) -> Sequence[int]:
        """Number of training documents of each class, as in `labels`; empty if unknown."""


class MixedCorpus:
    """Several corpora with one tokenizer; its labels are those of all of them.

    Args:
        corpora: name -> corpus; they are sorted by name.

    Raises:
        ConfigError: if they were not built with the same tokenizer, or two are the same corpus.
    """

    def __init__(self, corpora: Mapping[str, Corpus]) -> None:
        self.corpora = dict(sorted(corpora.items()))
        (name, first), *others = self.corpora.items()
        for other, corpus in others:
            if corpus.manifest.tokenizer.sha256 != first.manifest.tokenizer.sha256:
                raise ConfigError(
                    f"{corpus.where}: corpus '{other}' was built with another tokenizer than "
                    f"'{name}' ({first.where}); build both with the same --tokenizer"
                )
        known: dict[str, str] = {}
        for name, corpus in self.corpora.items():
            earlier = known.setdefault(corpus.fingerprint, name)
            if earlier != name:
                raise ConfigError(
                    f"{corpus.where}: is both '{earlier}' and '{name}' of the mixture, which would "
                    f"read every window twice; give one of them a higher weight"
                )
        self.where = first.where
        self.vocabulary = first.vocabulary
        self.labels = sorted({label for corpus in self.corpora.values() for label in corpus.labels})
        for corpus in self.corpora.values():
            corpus.name_classes(self.labels)

    @property
    def documents(self) -> int:
        """Number of training documents."""
        return sum(corpus.documents for corpus in self.corpora.values())

    @property
    def tokens(self) -> int:
        """Number of tokens of the training text."""
        return sum(corpus.tokens for corpus in self.corpora.values())

    @property
    def unlabeled(self) -> int:
        """Number of training documents without a class."""
        return sum(corpus.unlabeled for corpus in self.corpora.values())

    @property
    def label_counts(self) -> list[int]:
        """Number of training documents of each class, in the order of `labels`."""
        counts = zip(*(corpus.label_counts for corpus in self.corpora.values()), strict=True)
        return list(map(sum, counts))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the names and fingerprints of the corpora."""
        parts = {name: corpus.fingerprint for name, corpus in self.corpora.items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def tokenizer_file(self) -> Path:
        """Return the local path of the tokenizer."""
        return next(iter(self.corpora.values())).tokenizer_file()

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer."""
        return next(iter(self.corpora.values())).tokenizer()

    def verify(self, rank: int = 0, world: int = 1) -> None:
        """Check the shards of all corpora; see `Split.verify`."""
        for corpus in self.corpora.values():
            corpus.verify(rank, world)

    def close(self) -> None:
        """End transfers in the background."""
        for corpus in self.corpora.values():
            corpus.close()


AnyCorpus = Corpus | MixedCorpus


def open_corpora(data: DataConfig) -> AnyCorpus:
    """Open the corpus or corpora that the configuration names.

    Raises:
        MegaptError: if a corpus cannot be opened; see `Corpus`.
        ConfigError: if the corpora cannot be mixed; see `MixedCorpus`.
    """
    corpora = {name: Corpus(corpus.path, data.reading) for name, corpus in data.sources.items()}
    if data.mixture is not None:
        return MixedCorpus(corpora)
    (corpus,) = corpora.values()
    return corpus


def open_stream(
    corpus: AnyCorpus,
    split: SplitName,
    data: DataConfig,
    *,
    seed: int,
    global_batch_size: GlobalBatch | None = None,
) -> Stream:
    """Return the windows of one split.

    Args:
        corpus: one corpus or several.
        split: name of the split.
        data: the settings of reading.
        seed: seed of the run.
        global_batch_size: windows of a step, or their schedule; the schedule of a mixture counts in
            steps. None reads every window of each corpus once, evenly mixed.

    Raises:
        ConfigError: if the weights of a mixture leave nothing to read.
    """
    if isinstance(corpus, Corpus):
        return _stream(corpus, split, data, seed, (0, "corpus"))
    streams = {
        name: _stream(one, split, data, seed, (number, name))
        for number, (name, one) in enumerate(corpus.corpora.items())
    }
    config = data.mixture
    if global_batch_size is None or config is None:
        members = [Member(name, stream.count, 1.0) for name, stream in streams.items()]
        stages = [Stage(0, tuple(float(stream.count) for stream in streams.values()))]
    else:
        members = [
            Member(name, stream.count, config.corpora[name].max_epochs)
            for name, stream in streams.items()
        ]
        tokens = {name: one.split(split).info.tokens for name, one in corpus.corpora.items()}
        stages = _stages(config, tokens, as_schedule(global_batch_size))
    try:
        mixture = Mixture(members, stages)
    except ConfigError as error:
        raise ConfigError(f"data.mixture: {error}") from None
    identity = {
        "max_epochs": {member.name: member.max_epochs for member in members},
        # The rounded weights, which do not depend on the platform's arithmetic.
        "weights": {
            str(stage.start): [str(weight) for weight in mixture.weights(stage.start)]
            for stage in stages
            if mixture.total is None or stage.start < mixture.total
        },
    }
    return MixtureStream(streams, mixture, identity)


def _stages(
    config: MixtureConfig, tokens: Mapping[str, int], batches: BatchSchedule
) -> list[Stage]:
    """Return the stages of the weights of the corpora, in the order of `tokens`."""
    by_size = temperature_weights(list(tokens.values()), config.temperature)
    weights = {
        name: size if (weight := config.corpora[name].weight) is None else weight
        for name, size in zip(tokens, by_size, strict=True)
    }
    stages = [Stage(0, tuple(weights.values()))]
    for stage in config.schedule:
        weights = {**weights, **stage.weights}
        stages.append(Stage(batches.first_window(stage.step), tuple(weights.values())))
    return stages


def _stream(
    corpus: Corpus, split: SplitName, data: DataConfig, seed: int, number: tuple[int, str]
) -> WindowStream:
    return WindowStream(
        corpus.split(split),
        corpus.fingerprint,
        seed=seed,
        window=data.window,
        window_policy=data.window_policy,
        shuffle_buffer_shards=data.shuffle_buffer_shards,
        shuffle_buffer_blocks=data.shuffle_buffer_blocks,
        lanes=data.lanes,
        corpus=number,
    )
