"""A corpus of shards: its index, and the text of its documents on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.blocks import BlockData
from data_prep.errors import PrepError
from data_prep.files import sha256_of
from data_prep.manifest import SplitInfo
from data_prep.shards import Shard, read_index, read_lengths
from data_prep.tokenizers import Tokenizer, load_tokenizer
from megapt.config import ReadingConfig
from megapt.data.example import Ints, Piece
from megapt.data.reading import Location, ShardStore, open_location
from megapt.data.reading.errors import fault_of, kind_of
from megapt.errors import ConfigError, DamagedError

_RECENT_BLOCKS = 32
"""Blocks that `Split.piece` keeps unpacked, about 12 MB."""


@contextmanager
def reading_files() -> Iterator[None]:
    """Convert errors of `data_prep` and `OSError` into errors of megapt.

    Raises:
        DamagedError: if a file is missing or corrupt.
        UnavailableError: if its storage is unavailable.
        ConfigError: if it cannot be used here, or this process is short of file handles or memory.
    """
    try:
        yield
    except PrepError as error:
        raise kind_of(error)(str(error)) from None
    except OSError as error:
        raise fault_of(error.filename or "a file of the corpus", error) from None


class Split:
    """The documents of one split (train or valid).

    The index is memory-mapped, so opening is cheap however large the corpus is.

    Args:
        location: where the corpus is.
        name: name of the split.
        info: its entry in the manifest.
        reading: how shards are checked.
    """

    def __init__(
        self, location: Location, name: str, info: SplitInfo, reading: ReadingConfig
    ) -> None:
        self.name = name
        self.info = info
        """The split's entry in the manifest."""
        self.classes: Ints = np.append(np.arange(len(info.label_counts)), -1)
        """Class of each stored label, int64 [labels + 1]; the last, -1, is for no label."""
        folder = location.path(info.index).parent
        location.path(info.lengths)
        self.lengths: NDArray[np.uint32] = read_lengths(folder, info)
        """Tokens of each document, in shard order, uint32 [documents]."""
        self._table = read_index(folder, info)
        self.shard_tokens: Ints = np.array([shard.tokens for shard in info.shards])
        """Tokens of each shard, int64 [shards]."""
        self.shard_documents: Ints = np.cumsum([0, *(shard.documents for shard in info.shards)])
        """First document of each shard, plus the end, int64 [shards + 1]."""
        self._shard_blocks: Ints = np.cumsum([0, *(shard.blocks for shard in info.shards)])
        self._location = location
        self.store = ShardStore(location, info, self._table, reading)
        self._block = lru_cache(maxsize=_RECENT_BLOCKS)(self._read_block)

    def __len__(self) -> int:
        return self.info.documents

    def block_table(self, shard: int) -> Ints:
        """Return the documents and tokens of each block of a shard, int64 [blocks, 2]."""
        first, last = self._shard_blocks[shard : shard + 2]
        table: Ints = self._table[first:last, 1:]
        return table

    def block_tokens(self, shard: int) -> Ints:
        """Return the tokens of each block of a shard, int64 [blocks]."""
        tokens: Ints = self.block_table(shard)[:, 1]
        return tokens

    def block_documents(self, shard: int, block: int) -> tuple[int, int]:
        """Return the first document of a block, and one past its last."""
        before = int(self.block_table(shard)[:block, 0].sum()) + int(self.shard_documents[shard])
        return before, before + int(self.block_table(shard)[block, 0])

    def shard(self, number: int) -> Shard | None:
        """Return a shard, ready to be read; None if it is skipped (`reading.on_damage`).

        Raises:
            MegaptError: if it cannot be read, which ends the run; see `ShardStore.shard`.
        """
        return self.store.shard(number)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Class of every document, -1 if it has none, int32 [documents]; read on first access.

        Raises:
            MegaptError: if a shard cannot be read.
        """
        labels = np.full(len(self), -1, dtype=np.int32)
        for number, info in enumerate(self.info.shards):
            shard = self.shard(number)
            if shard is not None and self.info.labelled:
                first = int(self.shard_documents[number])
                with reading_files():
                    labels[first : first + info.documents] = self.classes[shard.labels()]
        return labels

    def piece(self, document: int, start: int = 0, stop: int | None = None) -> Piece:
        """Return tokens [start, stop) of document number `document` of this split.

        Raises:
            MegaptError: if its shard cannot be read.
        """
        number = int(np.searchsorted(self.shard_documents, document, side="right")) - 1
        ends = np.cumsum(self.block_table(number)[:, 0])
        in_shard = document - int(self.shard_documents[number])
        block = int(np.searchsorted(ends, in_shard, side="right"))
        in_block = in_shard - int(ends[block - 1] if block else 0)
        data = self._block(number, block)
        first = int(data.lens[:in_block].sum())
        length = int(data.lens[in_block])
        stop = length if stop is None else stop
        where = slice(first + start, first + stop)
        word_starts = data.words[where].copy()
        sentence_starts = data.sentences[where].copy()
        # The first token of a piece begins a word and a sentence of that piece, also after a cut.
        word_starts[:1] = sentence_starts[:1] = True
        return Piece(
            tokens=data.tokens[where],
            word_starts=word_starts,
            sentence_starts=sentence_starts,
            document=int(data.documents[in_block]),
            label=int(self.classes[data.labels[in_block]]),
            starts_document=start == 0,
            ends_document=stop == length,
        )

    def _read_block(self, number: int, block: int) -> BlockData:
        shard = self.shard(number)
        if shard is None:
            raise DamagedError(self.store.skipped[number])
        with reading_files():
            return shard.block(block)

    def verify(self, rank: int = 0, world: int = 1) -> None:
        """Check the SHA-256 of every `world`-th shard, beginning with number `rank`.

        Rank 0 checks the index too.

        Raises:
            DamagedError: if a file differs from the manifest.
            UnavailableError: if the storage is unavailable.
            ConfigError: if this process is short of file handles or memory.
        """
        if rank == 0:
            for info in (self.info.index, self.info.lengths):
                self._location.verify(info)
        for number in range(rank, len(self.info.shards), world):
            self.store.verify(number)


class Corpus:
    """A corpus that `megapt-prep build` wrote.

    Args:
        where: a folder, a URL, or `pipe:` and a command; see `DataConfig.corpus`.
        reading: how its files are fetched and checked.

    Raises:
        ConfigError: if there is no corpus, or it has another format.
        DamagedError: if one of its files is missing or corrupt.
        UnavailableError: if its storage is unavailable.
    """

    def __init__(self, where: str | Path, reading: ReadingConfig | None = None) -> None:
        self.where = str(where)
        self.reading = reading or ReadingConfig()
        self.location = open_location(self.where, self.reading)
        self.manifest = self.location.manifest()
        with reading_files():
            self.splits = {
                name: Split(self.location, name, info, self.reading)
                for name, info in self.manifest.splits.items()
            }
        self.vocabulary = self.manifest.vocabulary
        self.labels: Sequence[str] = self.manifest.labels

    @property
    def documents(self) -> int:
        """Number of training documents."""
        return self.train.info.documents

    @property
    def tokens(self) -> int:
        """Number of tokens of the training text."""
        return self.train.info.tokens

    @property
    def unlabeled(self) -> int:
        """Number of training documents without a class."""
        return self.train.info.documents - self.train.info.labelled

    @property
    def label_counts(self) -> list[int]:
        """Number of training documents of each class, in the order of `labels`."""
        counts = dict(zip(self.manifest.labels, self.train.info.label_counts, strict=True))
        return [counts.get(label, 0) for label in self.labels]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its manifest."""
        return self.manifest.fingerprint

    @property
    def train(self) -> Split:
        """Documents to train on."""
        return self.split("train")

    @property
    def validation(self) -> Split:
        """Documents to validate on."""
        return self.split("valid")

    def split(self, name: Literal["train", "valid"]) -> Split:
        """Return one split.

        Raises:
            ConfigError: if it has no documents.
        """
        found = self.splits.get(name)
        if not found:
            kind = {"train": "training", "valid": "validation"}[name]
            raise ConfigError(
                f"{self.where}: has no {kind} documents; build or reshard it with both splits"
            )
        return found

    def tokenizer_file(self) -> Path:
        """Return the local path of the tokenizer that the corpus was built with.

        Raises:
            MegaptError: if it cannot be fetched; see `Location.path`.
        """
        return self.location.path(self.manifest.tokenizer)

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer that the corpus was built with.

        Raises:
            DamagedError: if it is missing or is another tokenizer.
            UnavailableError: if its storage is unavailable.
            ConfigError: if a package that it needs is not installed.
        """
        info, path = self.manifest.tokenizer, self.tokenizer_file()
        with reading_files():
            sha256 = sha256_of(path)
            if sha256 != info.sha256:
                raise DamagedError(
                    f"{path}: is not the tokenizer that the corpus was built with "
                    f"(sha256 {sha256[:12]}…, the manifest says {info.sha256[:12]}…)"
                )
            return load_tokenizer(path)

    def name_classes(self, names: Sequence[str]) -> None:
        """Set the class of each label to its index in `names`, which holds all labels."""
        for split in self.splits.values():
            split.classes = np.array([*map(names.index, self.manifest.labels), -1])
        self.labels = names

    def verify(self, rank: int = 0, world: int = 1) -> None:
        """Check the shards of all splits; see `Split.verify`."""
        for split in self.splits.values():
            split.verify(rank, world)

    def close(self) -> None:
        """End transfers in the background."""
        self.location.close()
