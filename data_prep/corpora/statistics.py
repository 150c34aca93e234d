"""The figures of a corpus, found in one pass over its small members.

Lengths, byte counts and the packed marks are read; the tokens, eight ninths of a shard, only
when they are asked for. Memory does not grow with the number of documents.
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
    """How many documents have each length: exact, so quantiles are exact too.

    Attributes:
        short: int64 [65536], documents of each length below 65,536 tokens.
        long: documents of each greater length; such documents are few.
    """

    short: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_SHORT, dtype=np.int64))
    long: Counter[int] = field(default_factory=Counter)

    def add(self, lens: NDArray[np.integer[Any]]) -> None:
        """Count documents of these lengths, [D]."""
        is_short = lens < _SHORT
        self.short += np.bincount(lens[is_short], minlength=_SHORT)
        self.long.update(lens[~is_short].tolist())

    def update(self, other: "LengthCounts") -> None:
        """Count all that `other` has counted."""
        self.short += other.short
        self.long.update(other.long)

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The lengths that occur, rising, and the documents of each, both int64 [N]."""
        short = np.flatnonzero(self.short)
        long = np.array(sorted(self.long.items()), dtype=np.int64).reshape(-1, 2)
        lengths = np.concatenate([short, long[:, 0]])
        return lengths, np.concatenate([self.short[short], long[:, 1]])

    def quantiles(self, shares: tuple[float, ...]) -> list[int]:
        """For each share, the least length that this share of the documents does not exceed."""
        lengths, counts = self.table()
        ends = np.cumsum(counts)
        wanted = np.ceil(np.array(shares) * ends[-1]).clip(1)
        found: list[int] = lengths[np.searchsorted(ends, wanted)].tolist()
        return found

    def octaves(self) -> dict[int, int]:
        """Documents with lengths from 2^k to 2^(k+1) - 1, by 2^k, from the shortest on."""
        lengths, counts = self.table()
        exponents = np.frexp(lengths)[1] - 1  # exact: a length is below 2^53
        octaves = np.bincount(exponents, weights=counts).astype(np.int64)
        return {1 << k: int(octaves[k]) for k in range(int(exponents[0]), len(octaves))}


@dataclass
class Figures:
    """Sums over some documents.

    Attributes:
        documents: number of documents.
        tokens: number of tokens.
        words: number of word starts.
        sentences: number of sentence starts.
        text_bytes: UTF-8 bytes of their text.
        lengths: tokens of a document, counted.
    """

    documents: int = 0
    tokens: int = 0
    words: int = 0
    sentences: int = 0
    text_bytes: int = 0
    lengths: LengthCounts = field(default_factory=LengthCounts)

    def update(self, other: "Figures") -> None:
        """Add the sums of other documents."""
        for name in ("documents", "tokens", "words", "sentences", "text_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lengths.update(other.lengths)

    def as_json(self) -> dict[str, Any]:
        """Sums, ratios, quantiles and histogram as JSON values."""
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
    """How often each piece occurs, and what that says about the text.

    Args:
        tokenizer: the corpus's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.vocabulary = tokenizer.vocabulary
        self.counts = np.zeros(self.vocabulary.size, dtype=np.int64)
        # Bytes of UTF-8 after the first of a character.
        following = [sum(byte & 0xC0 == 0x80 for byte in data) for data in tokenizer.surfaces]
        self._following = np.array(following, dtype=np.int64)

    def add(self, tokens: NDArray[np.integer[Any]]) -> None:
        """Count tokens, [T]."""
        self.counts += np.bincount(tokens, minlength=len(self.counts))

    def as_json(self, text_bytes: int) -> dict[str, Any]:
        """Characters and use of the vocabulary as JSON values.

        A character is a byte of the text that does not follow another of its character; so
        the figure is exact where the tokenizer gives texts back as they were.
        """
        characters = text_bytes - int(self.counts @ self._following)
        used = np.count_nonzero(self.counts[self.vocabulary.ordinary])
        return {
            "characters": characters,
            "characters_per_token": characters / int(self.counts.sum()),
            "vocabulary_used": used / len(self.vocabulary.ordinary),
        }


def corpus_summary(corpus: Corpus, *, tokens: bool = False) -> dict[str, Any]:
    """The figures of a corpus, as JSON values.

    Args:
        corpus: the corpus.
        tokens: read the tokens too, for the characters and the use of the vocabulary.

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
        "rejected": _most_first(manifest.rejected),
        "changed": _most_first(manifest.changed),
        "settings": manifest.settings,
        "splits": splits,
    }


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _split_summary(
    split: SplitReader, manifest: Manifest, counts: TokenCounts | None, progress: ByteProgress
) -> dict[str, Any]:
    of_corpora = [Figures() for _ in manifest.corpora or [""]]
    for number, info in enumerate(split.info.shards):
        shard = split.shard(number)
        for index in range(len(shard)):
            _count_block(shard, index, of_corpora)
            if counts:
                counts.add(*shard.stored(index, "tokens"))
        progress.advance(info.bytes)
    whole = Figures()
    for figures in of_corpora:
        whole.update(figures)
    named = zip(manifest.corpora, of_corpora, strict=False)
    return {
        **whole.as_json(),
        **(counts.as_json(split.info.text_bytes) if counts else {}),
        "shards": len(split.info.shards),
        "blocks": len(split),
        "disk_bytes": sum(info.bytes for info in split.info.shards),
        "labels": dict(zip(manifest.labels, split.info.label_counts, strict=True)),
        "unlabeled": split.info.documents - split.info.labeled,
        "corpora": {name: figures.as_json() for name, figures in named if figures.documents},
    }


def _count_block(shard: StoredShard, index: int, of_corpora: list[Figures]) -> None:
    names = ("lens", "bytes", "corpora", "words", "sentences")
    lens, text_bytes, corpora, words, sentences = shard.stored(index, *names)
    present = np.unique(corpora).tolist()
    if len(present) == 1:
        found = of_corpora[present[0]]
        found.words += int(np.bitwise_count(words).sum(dtype=np.int64))
        found.sentences += int(np.bitwise_count(sentences).sum(dtype=np.int64))
    else:
        # Rare: the documents of a corpus lie together, so few blocks hold several.
        starts = np.cumsum(lens, dtype=np.int64) - lens
        words, sentences = (
            np.add.reduceat(np.unpackbits(marks), starts, dtype=np.int64)
            for marks in (words, sentences)
        )
    for corpus in present:
        of_it = corpora == corpus
        found = of_corpora[corpus]
        found.documents += int(of_it.sum())
        found.tokens += int(lens[of_it].sum(dtype=np.int64))
        found.text_bytes += int(text_bytes[of_it].sum(dtype=np.int64))
        found.lengths.add(lens[of_it])
        if len(present) > 1:
            found.words += int(words[of_it].sum())
            found.sentences += int(sentences[of_it].sum())
