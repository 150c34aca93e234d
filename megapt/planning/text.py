"""Made-up text of the lengths that a corpus has: what a plan and a dry run compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.errors import PrepError
from data_prep.manifest import Manifest
from megapt.config import DataConfig, RunConfig
from megapt.data import Batch, CounterRng, Piece, Rows, Vocabulary, Window, collate
from megapt.data.reading.errors import kind_of
from megapt.errors import ConfigError
from megapt.objectives import Context, Objective

_WORD, _SENTENCE = 2, 16
"""Tokens of a made-up word and of a sentence; a sentence is whole words."""
_SENTINELS = 100
"""As many as a tokenizer has by default."""


@dataclass(frozen=True)
class Text:
    """What a plan knows of the text of a run."""

    vocabulary: Vocabulary
    labels: Sequence[str]
    documents: int
    """Training documents; 0 if unknown."""
    tokens: int
    """Tokens of training text; 0 if unknown."""
    unlabelled: int
    label_counts: Sequence[int]

    def context(self, config: RunConfig) -> Context:
        """Return what an objective is told of it."""
        return Context(
            self.vocabulary,
            config.data.window,
            tuple(self.labels),
            unlabelled=self.unlabelled,
            label_counts=tuple(self.label_counts),
            documents=self.documents,
            tokens=self.tokens,
            steps=config.planned_steps,
        )

    def piece_length(self, window: int) -> int:
        """Return the tokens of a piece: those of a document on average, at most W = `window`."""
        if not self.documents:
            return window
        return min(window, max(1, round(self.tokens / self.documents)))


def _stand_in(size: int) -> Vocabulary:
    """Return a vocabulary of `size` ids that has every piece an objective may need."""
    ids = iter(range(size))
    names = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
    single = {name: next(ids) for name in names}
    modes = {name: next(ids) for name in ("NLU", "NLG", "S2S")}
    infilling = {name: next(ids) for name in ("PRE", "SUF", "MID")}
    sentinels = [next(ids) for _ in range(_SENTINELS)]
    reserved = list(range(next(ids)))
    return Vocabulary(
        size=size,
        modes=modes,
        infilling=infilling,
        sentinels=sentinels,
        reserved=reserved,
        **single,
    )


def made_up_text(vocabulary: int, labels: int = 0) -> Text:
    """Return what stands for a corpus that is not there.

    Args:
        vocabulary: number of token ids.
        labels: document classes.

    Raises:
        ConfigError: if the vocabulary has no room for what objectives need.
    """
    least = 2 * (_SENTINELS + 13)
    if vocabulary < least:
        raise ConfigError(f"--vocabulary: should be at least {least}, not {vocabulary}")
    names = [str(number) for number in range(labels)]
    return Text(_stand_in(vocabulary), names, 0, 0, 0, [])


def _manifest(where: str) -> Manifest:
    try:
        return Manifest.load(where)
    except (PrepError, OSError) as error:
        raise kind_of(error)(f"{error}; without a corpus give --vocabulary") from None


def corpus_text(data: DataConfig) -> Text:
    """Return what the manifests of local corpora say; no shard is read.

    Raises:
        ConfigError: if there is none.
        DamagedError: if it is not what `megapt-prep build` wrote.
        UnavailableError: if its storage is away.
    """
    manifests = [_manifest(corpus.path) for corpus in data.sources.values()]
    trains = [manifest.splits["train"] for manifest in manifests]
    labels = sorted({label for manifest in manifests for label in manifest.labels})
    counts = dict.fromkeys(labels, 0)
    for manifest, train in zip(manifests, trains, strict=True):
        for label, count in zip(manifest.labels, train.label_counts, strict=True):
            counts[label] += count
    documents = sum(train.documents for train in trains)
    return Text(
        vocabulary=manifests[0].vocabulary,
        labels=manifests[0].labels if len(manifests) == 1 else labels,
        documents=documents,
        tokens=sum(train.tokens for train in trains),
        unlabelled=documents - sum(train.labelled for train in trains),
        label_counts=list(counts.values()),
    )


def _piece(text: Text, length: int, number: int) -> Piece:
    ordinary = text.vocabulary.ordinary
    places = np.arange(length)
    return Piece(
        tokens=ordinary[(places + number) % len(ordinary)],
        word_starts=places % _WORD == 0,
        sentence_starts=places % _SENTENCE == 0,
        document=number,
        label=number % len(text.labels) if text.labels else -1,
        starts_document=True,
        ends_document=True,
    )


def _window(text: Text, size: int, length: int, index: int) -> Window:
    """Return a full window of documents of `length` tokens."""
    lengths = [length] * (size // length) + [size % length] * (size % length > 0)
    first = index * len(lengths)
    pieces = (_piece(text, n, first + number) for number, n in enumerate(lengths))
    return Window(0, index, tuple(pieces))


def made_up_batch(
    text: Text, objective: Objective, size: int, windows: int, rows: Rows | None = None
) -> Batch:
    """Return what an objective makes of full windows.

    Args:
        text: whose lengths the documents have; they are shorter where the objective needs several
            in a window.
        objective: makes the examples.
        size: tokens W of a window.
        windows: how many.
        rows: that the examples are packed into; without, they lie end to end.

    Raises:
        ConfigError: if it makes nothing of them.
    """
    whole = text.piece_length(size)
    for length in (whole, max(1, min(whole, size // 4))):
        made = [
            objective.examples(_window(text, size, length, index), CounterRng(0, index))
            for index in range(windows)
        ]
        if any(made):
            break
    else:
        raise ConfigError(
            f"objective: '{objective.name}' makes nothing of windows of {size} tokens"
        )
    return collate(
        [example for examples in made for example in examples],
        pad=text.vocabulary.pad,
        heads=[head.name for head in objective.heads],
        token_heads=[head.name for head in objective.heads if head.over_vocabulary],
        raw_tokens=windows * size,
        per_window=list(map(len, made)),
        rows=rows,
    ).widen()
