"""Computes the statistics of a corpus in one pass over its small members.

Lengths, byte counts and packed marks are read. The tokens, eight ninths of a shard, are read only
on request. Memory does not grow with the number of documents.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.corpora.reading import Corpus, SplitReader, StoredShard
from data_prep.manifest import Manifest
from data_prep.progress import ByteProgress
from data_prep.tokenizers import Tokenizer

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_SHORT = 1 << 16


@dataclass
class LengthCounts:
    """Number of documents of each length. The counts are exact, and so are the quantiles."""

    short: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_SHORT, dtype=np.int64))
    """int64 [65536], documents of each length below 65,536 tokens."""
    long: Counter[int] = field(default_factory=Counter)
    """Documents of each greater length; there are few of them."""

    def add(self, lens: NDArray[np.integer[Any]]) -> None:
        """Count documents of these lengths, [D]."""
        is_short = lens < _SHORT
        self.short += np.bincount(lens[is_short], minlength=_SHORT)
        self.long.update(lens[~is_short].tolist())

    def update(self, other: "LengthCounts") -> None:
        """Add the counts of `other`."""
        self.short += other.short
        self.long.update(other.long)

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the lengths that occur, increasing, and the documents of each, both int64 [N]."""
        short = np.flatnonzero(self.short)
        long = np.array(sorted(self.long.items()), dtype=np.int64).reshape(-1, 2)
        lengths = np.concatenate([short, long[:, 0]])
        return lengths, np.concatenate([self.short[short], long[:, 1]])

    def quantiles(self, shares: tuple[float, ...]) -> list[int]:
        """Return for each share the smallest length that this share of documents has at most."""
        lengths, counts = self.table()
        ends = np.cumsum(counts)
        wanted = np.ceil(np.array(shares) * ends[-1]).clip(1)
        found: list[int] = lengths[np.searchsorted(ends, wanted)].tolist()
        return found

    def octaves(self) -> dict[int, int]:
        """Return the number of documents of lengths 2^k to 2^(k+1) - 1, by 2^k, increasing."""
        lengths, counts = self.table()
        exponents = np.frexp(lengths)[1] - 1  # exact: a length is below 2^53
        octaves = np.bincount(exponents, weights=counts).astype(np.int64)
        return {1 << k: int(octaves[k]) for k in range(int(exponents[0]), len(octaves))}


@dataclass
class Figures:
    """Sums over some documents."""

    documents: int = 0
    """Number of documents."""
    tokens: int = 0
    """Number of tokens."""
    words: int = 0
    """Number of word starts."""
    sentences: int = 0
    """Number of sentence starts."""
    text_bytes: int = 0
    """UTF-8 bytes of their text."""
    lengths: LengthCounts = field(default_factory=LengthCounts)
    """Token counts of the documents."""

    def update(self, other: "Figures") -> None:
        """Add the sums of other documents."""
        for name in ("documents", "tokens", "words", "sentences", "text_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lengths.update(other.lengths)

    def as_json(self) -> dict[str, Any]:
        """Return sums, ratios, quantiles and histogram as JSON values."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "words": self.words,
            "sentences": self.sentences,
            "text_bytes": self.text_bytes,
            "bytes_per_token": self.text_bytes / self.tokens,
            "tokens_per_word": self.tokens / self.words,
            "words_per_sentence": self.words / self.sentences,
            "document_tokens": {
                f"{share:.0%}": value
                for share, value in zip(QUANTILES, self.lengths.quantiles(QUANTILES), strict=True)
            },
            "length_histogram": {
                str(least): count for least, count in self.lengths.octaves().items()
            },
        }


class TokenCounts:
    """Counts how often each piece occurs.

    Args:
        tokenizer: the corpus's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.vocabulary = tokenizer.vocabulary
        self.counts = np.zeros(self.vocabulary.size, dtype=np.int64)
        # Continuation bytes of UTF-8: those after the first of a character.
        following = [sum(byte & 0xC0 == 0x80 for byte in data) for data in tokenizer.surfaces]
        self._following = np.array(following, dtype=np.int64)

    def add(self, tokens: NDArray[np.integer[Any]]) -> None:
        """Count tokens, [T]."""
        self.counts += np.bincount(tokens, minlength=len(self.counts))

    def as_json(self, text_bytes: int) -> dict[str, Any]:
        """Return the characters and the use of the vocabulary as JSON values.

        The number of characters is that of text bytes that are not UTF-8 continuation bytes. It is
        exact if the tokenizer is lossless.
        """
        characters = text_bytes - int(self.counts @ self._following)
        used = np.count_nonzero(self.counts[self.vocabulary.ordinary])
        return {
            "characters": characters,
            "characters_per_token": characters / int(self.counts.sum()),
            "vocabulary_used": used / len(self.vocabulary.ordinary),
        }


def corpus_summary(corpus: Corpus, *, tokens: bool = False) -> dict[str, Any]:
    """Return the statistics of a corpus, as JSON values.

    Args:
        corpus: the corpus.
        tokens: whether to read the tokens too, for the characters and the use of the vocabulary.

    Raises:
        PrepError: a shard is missing or damaged.
    """
    manifest = corpus.manifest
    splits = {}
    total = sum(info.bytes for split in corpus.splits.values() for info in split.info.shards)
    with ByteProgress("inspect", total) as progress:
        for name, split in corpus.splits.items():
            counts = TokenCounts(corpus.tokenizer) if tokens else None
            splits[name] = _split_summary(split, manifest, counts, progress)
    others = [manifest.tokenizer]
    for split in corpus.splits.values():
        others += [split.info.index, split.info.lengths]
    return {
        "fingerprint": manifest.fingerprint,
        "format": manifest.format,
        "vocabulary_size": manifest.vocabulary.size,
        "tokenizer": asdict(manifest.tokenizer),
        "keeps_ids": manifest.keeps_ids,
        "source_documents": manifest.source_documents,
        "disk_bytes": total + sum(info.bytes for info in others),
        "rejected": _by_count(manifest.rejected),
        "changed": _by_count(manifest.changed),
        "settings": manifest.settings,
        "splits": splits,
    }


def _by_count(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _split_summary(
    split: SplitReader, manifest: Manifest, counts: TokenCounts | None, progress: ByteProgress
) -> dict[str, Any]:
    by_corpus = [Figures() for _ in manifest.corpora or [""]]
    for number, info in enumerate(split.info.shards):
        shard = split.shard(number)
        for index in range(len(shard)):
            _count_block(shard, index, by_corpus)
            if counts:
                counts.add(*shard.stored(index, "tokens"))
        progress.advance(info.bytes)
    whole = Figures()
    for figures in by_corpus:
        whole.update(figures)
    named = zip(manifest.corpora, by_corpus, strict=False)
    return {
        **whole.as_json(),
        **(counts.as_json(split.info.text_bytes) if counts else {}),
        "shards": len(split.info.shards),
        "blocks": len(split),
        "disk_bytes": sum(info.bytes for info in split.info.shards),
        "labels": dict(zip(manifest.labels, split.info.label_counts, strict=True)),
        "unlabeled": split.info.documents - split.info.labelled,
        "corpora": {name: figures.as_json() for name, figures in named if figures.documents},
    }


def _count_block(shard: StoredShard, index: int, by_corpus: list[Figures]) -> None:
    names = ("lens", "bytes", "corpora", "words", "sentences")
    lens, text_bytes, corpora, words, sentences = shard.stored(index, *names)
    present = np.unique(corpora).tolist()
    if len(present) == 1:
        found = by_corpus[present[0]]
        found.words += int(np.bitwise_count(words).sum(dtype=np.int64))
        found.sentences += int(np.bitwise_count(sentences).sum(dtype=np.int64))
    else:
        # Rare: the documents of a corpus are adjacent, so few blocks hold several corpora.
        starts = np.cumsum(lens, dtype=np.int64) - lens
        words, sentences = (
            np.add.reduceat(np.unpackbits(marks), starts, dtype=np.int64)
            for marks in (words, sentences)
        )
    for corpus in present:
        selected = corpora == corpus
        found = by_corpus[corpus]
        found.documents += int(selected.sum())
        found.tokens += int(lens[selected].sum(dtype=np.int64))
        found.text_bytes += int(text_bytes[selected].sum(dtype=np.int64))
        found.lengths.add(lens[selected])
        if len(present) > 1:
            found.words += int(words[selected].sum())
            found.sentences += int(sentences[selected].sum())
