"""Reads a finished corpus block by block or at random, with few shards open at a time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.blocks import BlockData, cut_documents
from data_prep.errors import PrepError
from data_prep.manifest import Manifest, SplitInfo
from data_prep.shards import Shard, read_index
from data_prep.tokenizers import Tokenizer, load_tokenizer

_OPTIONAL = ("labels", "corpora")
_OPEN_SHARDS = 8


class StoredShard(Shard):
    """A shard that also returns single members of a block as they are stored in the tar."""

    def stored(self, index: int, *names: str) -> list[NDArray[Any]]:
        """Return arrays of a block, without reading its other members.

        Args:
            index: the block.
            names: fields of `BlockData` except "ids"; "words" and "sentences" are returned as
                they are stored, uint8 [⌈T/8⌉], eight marks per byte.

        Raises:
            PrepError: the bytes are not the block that the index describes.
        """
        members = self._members(index)
        return [
            self._or_default(members, index, name)
            if name in _OPTIONAL
            else self._array(members, index, name)
            for name in names
        ]

    def may_hold_id(self, index: int, id_: str) -> bool:
        """Return whether the stored ids of a block contain this id; faster than parsing them."""
        members = self._members(index)
        if "ids" not in members:
            return False
        start, size = members["ids"]
        return self._bytes().find(_stored_id(id_), start, start + size) >= 0


def _stored_id(id_: str) -> bytes:
    return json.dumps(id_, ensure_ascii=False).encode()


@dataclass(frozen=True)
class StoredDocument:
    """A document of a corpus: its split, and its data as a block of one document."""

    split: str
    data: BlockData

    @property
    def number(self) -> int:
        """The document's number in the input."""
        return int(self.data.documents[0])


class SplitReader:
    """Reads one split of a corpus. A shard is opened when it is read; only a few stay open.

    Blocks and documents are counted over the whole split.

    Args:
        folder: the corpus folder.
        name: "train" or "valid".
        info: the manifest's entry.

    Raises:
        PrepError: the index is missing or is not what the manifest describes.
    """

    def __init__(self, folder: Path, name: str, info: SplitInfo) -> None:
        self.name = name
        self.info = info
        self._folder = folder
        self._table = read_index(folder, info)
        self._block_ends = np.cumsum([shard.blocks for shard in info.shards], dtype=np.int64)
        self._document_ends = np.cumsum([shard.documents for shard in info.shards], dtype=np.int64)
        self.shard = lru_cache(_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return len(self._table)

    def _open(self, number: int) -> StoredShard:
        info = self.info.shards[number]
        end = int(self._block_ends[number])
        return StoredShard(self._folder, info, self._table[end - info.blocks : end])

    def blocks(self) -> Iterator[tuple[StoredShard, int]]:
        """Yield every block, as its shard and its index in the shard, in order."""
        for number, info in enumerate(self.info.shards):
            for index in range(info.blocks):
                yield self.shard(number), index

    def block(self, place: int) -> tuple[StoredShard, int]:
        """Return block `place` of the split, as its shard and its index in the shard."""
        number = int(np.searchsorted(self._block_ends, place, side="right"))
        begin = int(self._block_ends[number]) - self.info.shards[number].blocks
        return self.shard(number), place - begin

    def document(self, place: int) -> StoredDocument:
        """Return document `place` of the split, counted from 0."""
        number = int(np.searchsorted(self._document_ends, place, side="right"))
        place -= int(self._document_ends[number]) - self.info.shards[number].documents
        ends = np.cumsum(self.shard(number).table[:, 1])
        index = int(np.searchsorted(ends, place, side="right"))
        begin = int(ends[index] - self.shard(number).table[index, 1])
        return self._read_document(self.shard(number), index, place - begin)

    def find(self, number: int) -> StoredDocument | None:
        """Find the document with this number in the input, by binary search over the blocks."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            shard, index = self.block(middle)
            numbers = shard.documents(index)
            if number < numbers[0]:
                high = middle
            elif number > numbers[-1]:
                low = middle + 1
            else:
                place = int(np.searchsorted(numbers, number))
                found = numbers[place] == number
                return self._read_document(shard, index, place) if found else None
        return None

    def with_id(self, id_: str) -> Iterator[StoredDocument]:
        """Yield every document with this id; scans the ids of the whole split."""
        for shard, index in self.blocks():
            if shard.may_hold_id(index, id_):
                for place in np.flatnonzero(shard.ids(index) == id_).tolist():
                    yield self._read_document(shard, index, place)

    def _read_document(self, shard: StoredShard, index: int, place: int) -> StoredDocument:
        block = shard.block(index, with_ids=True)
        return StoredDocument(self.name, cut_documents(block, place, place + 1))


def choose_splits(folder: Path, manifest: Manifest, names: Sequence[str]) -> dict[str, SplitInfo]:
    """Return the splits with these names, in the manifest's order; all if `names` is empty.

    Raises:
        PrepError: the corpus `folder` has no such split.
    """
    for name in names:
        if name not in manifest.splits:
            has = ", ".join(manifest.splits)
            raise PrepError(f"{folder}: no split {name!r}; it has {has}")
    return {name: info for name, info in manifest.splits.items() if not names or name in names}


class Corpus:
    """A finished corpus.

    Args:
        folder: the corpus folder.
        splits: the splits to read; all if empty.

    Raises:
        PrepError: the manifest or an index is missing or damaged, or there is no such split.
    """

    def __init__(self, folder: Path, splits: Sequence[str] = ()) -> None:
        self.folder = folder
        self.manifest = Manifest.load(folder)
        chosen = choose_splits(folder, self.manifest, splits)
        self.splits = {name: SplitReader(folder, name, info) for name, info in chosen.items()}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the corpus."""
        return load_tokenizer(self.folder / self.manifest.tokenizer.file)

    def find(self, number: int) -> StoredDocument:
        """Return the document with this number in the input.

        Raises:
            PrepError: the splits that are read hold no such document.
        """
        for split in self.splits.values():
            if (found := split.find(number)) is not None:
                return found
        last = self.manifest.source_documents - 1
        if not 0 <= number <= last:
            reason = f"numbers go from 0 to {last}"
        elif set(self.splits) < set(self.manifest.splits):
            reason = f"it is not in {', '.join(self.splits)}"
        else:
            reason = "it was rejected or removed as a duplicate"
        raise PrepError(f"{self.folder}: no document {number}: {reason}")

    def label(self, document: StoredDocument) -> str | None:
        """Return the name of a document's label, or None."""
        label = int(document.data.labels[0])
        return self.manifest.labels[label] if label >= 0 else None

    def corpus(self, document: StoredDocument) -> str | None:
        """Return the name of a document's corpus, or None if corpora have no names."""
        names = self.manifest.corpora
        return names[int(document.data.corpora[0])] if names else None
