"""Assembles new shards from documents of existing shards.

The last stage of a build, `merge` and `reshard` all use this module. Its input is a sequence of
sources, the documents to drop, and a size. Document lengths alone decide where shards end. Each
shard is then written independently, by any process. Its bytes depend neither on the sizes of the
sources nor on the processes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from data_prep.blocks import BlockData, block_ends, cut_blocks, cut_documents, keep_documents
from data_prep.execution import Context
from data_prep.files import write_atomically
from data_prep.manifest import FileInfo, ShardInfo, SplitInfo, describe_file
from data_prep.shard_writer import Layout, ShardWriter, npy
from data_prep.shards import Shard

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Source:
    """A shard whose documents go into new shards."""

    shard: Shard
    first_document: int
    """Offset that is added to the shard's document numbers."""
    labels: NDArray[np.int32]
    """int32 [labels of the source + 1], the new index of each label; the last is -1, for none."""
    corpora: NDArray[np.uint16]
    """uint16 [corpora of the source], the new index of each corpus."""
    lengths: Path | None = None
    """.npy file with the old number and the token count of each document, int64 [D, 2]. With None
    they are read block by block, which takes longer."""

    def documents(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the new number and the token count of each document, each int64 [D]."""
        if self.lengths:
            table: NDArray[np.int64] = np.load(self.lengths)
            return table[:, 0] + self.first_document, table[:, 1]
        shard = self.shard
        numbers = np.concatenate([shard.documents(index) for index in range(len(shard))])
        lens = shard.lens().astype(np.int64)
        shard.close()  # there are more shards than files that a process may open
        return numbers + self.first_document, lens


@dataclass(frozen=True)
class Slice:
    """Documents [start, stop) of a source, in its order, including those to drop."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class ShardPlan:
    """A shard to write: its file name, the key of its first block, and its documents."""

    file: str
    first_block: int
    slices: Sequence[Slice]

    def __str__(self) -> str:
        return f"shard {self.file}"


class WrittenShard(BaseModel):
    """A shard as it was written, with the counts that the manifest adds up."""

    info: ShardInfo
    """The shard's entry in the manifest."""
    table: list[tuple[int, int, int]]
    """Byte offset, documents and tokens of each block."""
    text_bytes: int
    """UTF-8 bytes of the documents' text."""
    label_counts: list[int]
    """Documents per label."""
    corpus_counts: list[int]
    """Documents per corpus; one number if corpora have no names."""


def is_dropped(numbers: NDArray[np.int64], dropped: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of these documents are dropped, bool [D].

    Args:
        numbers: sorted document numbers, int64 [D].
        dropped: sorted numbers of the dropped documents, int64 [N]; may be a memory map.
    """
    low, high = np.searchsorted(dropped, [numbers[0], numbers[-1] + 1]).tolist()
    return np.isin(numbers, dropped[low:high], assume_unique=True)


def plan_shards(
    split: str,
    sources: Sequence[Source],
    dropped: NDArray[np.int64],
    block_tokens: int,
    shard_tokens: int,
    add_lengths: Callable[[NDArray[np.int64]], None],
) -> Iterator[ShardPlan]:
    """Find the documents of each shard, reading document lengths only.

    A shard ends with the block that brings it to `shard_tokens`. An empty shard is not planned, and
    so neither is an empty split.

    Args:
        split: name of the split, for the names of its shards.
        sources: the shards that hold its documents, in order.
        dropped: sorted numbers of the documents to drop, int64 [N].
        block_tokens: the size of a block, in tokens.
        shard_tokens: the size of a shard, in tokens.
        add_lengths: called once per source with the token counts of the documents that stay,
            int64 [D], in the order of the new shards.

    Yields:
        The plan of each shard, in order.
    """
    slices: list[Slice] = []
    shards = blocks = held_by_block = held_by_shard = 0
    first_block = 0
    for source in sources:
        numbers, lens = source.documents()
        if len(dropped):
            lens[is_dropped(numbers, dropped)] = 0
        add_lengths(lens[lens > 0])  # a document that stays has at least one token
        before = np.concatenate([[0], np.cumsum(lens)])
        start = done = 0
        for end in block_ends(lens, block_tokens, held_by_block):
            blocks += 1
            held_by_shard += int(before[end] - before[done])
            done, held_by_block = end, 0
            if held_by_shard >= shard_tokens:
                slices.append(Slice(source, start, end))
                yield ShardPlan(f"{split}-{shards:06d}.tar", first_block, slices)
                slices, shards, start, held_by_shard = [], shards + 1, end, 0
                first_block = blocks
        if before[-1] > before[start]:
            slices.append(Slice(source, start, len(lens)))
        held_by_shard += int(before[-1] - before[done])
        held_by_block += int(before[-1] - before[done])
    if slices:
        yield ShardPlan(f"{split}-{shards:06d}.tar", first_block, slices)


@dataclass
class ShardAssembler:
    """Writes planned shards; created once in each process."""

    folder: Path
    """Folder for the shards."""
    layout: Layout
    """The members of the blocks."""
    labels: int
    """Number of labels of the new corpus."""
    corpora: int
    """Number of corpora of the new corpus, at least 1."""
    block_tokens: int
    """The size of a block, in tokens."""
    dropped_path: Path | None
    """.npy file with the sorted numbers of the documents to drop, or None."""
    dropped: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        none = np.empty(0, dtype=np.int64)
        self.dropped = np.load(self.dropped_path, mmap_mode="r") if self.dropped_path else none

    def __call__(self, plan: ShardPlan, context: Context) -> WrittenShard:
        """Write one shard, which gets its name when it is complete.

        Raises:
            PrepError: a source is damaged.
            OSError: the disk is full.
        """
        text_bytes = 0
        labels = np.zeros(self.labels + 1, dtype=np.int64)  # the last is for no label
        corpora = np.zeros(self.corpora, dtype=np.int64)
        with ShardWriter(self.folder / plan.file, self.layout) as writer:
            blocks = cut_blocks(self._documents(plan), self.block_tokens)
            for key, block in enumerate(blocks, plan.first_block):
                writer.write(key, block)
                text_bytes += int(block.bytes.sum(dtype=np.int64))
                labels += np.bincount(block.labels % len(labels), minlength=len(labels))
                corpora += np.bincount(block.corpora, minlength=self.corpora)
        return WrittenShard(
            info=writer.info,
            table=writer.table,
            text_bytes=text_bytes,
            label_counts=labels[:-1].tolist(),
            corpus_counts=corpora.tolist(),
        )

    def _documents(self, plan: ShardPlan) -> Iterator[BlockData]:
        for part in plan.slices:
            source = part.source
            ends = np.cumsum(source.shard.table[:, 1])
            first = int(np.searchsorted(ends, part.start, side="right"))
            last = int(np.searchsorted(ends, part.stop, side="left"))
            for index in range(first, last + 1):
                begin = int(ends[index] - source.shard.table[index, 1])
                block = source.shard.block(index, with_ids=self.layout.ids)
                block = cut_documents(
                    block, max(part.start - begin, 0), min(part.stop - begin, len(block))
                )
                numbers = block.documents + source.first_document
                block = replace(
                    block,
                    documents=numbers,
                    labels=source.labels[block.labels],
                    corpora=source.corpora[block.corpora],
                )
                if len(self.dropped):
                    block = keep_documents(block, ~is_dropped(numbers, self.dropped))
                if len(block):
                    yield block
            source.shard.close()


def summarize_split(
    shards: Sequence[WrittenShard], index: FileInfo, lengths: FileInfo
) -> SplitInfo:
    """Return the manifest's entry for a split of these shards."""

    def total(name: str) -> list[Any]:
        counts = np.array([getattr(shard, name) for shard in shards], dtype=np.int64)
        summed: list[Any] = counts.sum(axis=0).tolist()
        return summed

    label_counts = total("label_counts")
    return SplitInfo(
        documents=sum(shard.info.documents for shard in shards),
        tokens=sum(shard.info.tokens for shard in shards),
        text_bytes=sum(shard.text_bytes for shard in shards),
        labelled=sum(label_counts),
        label_counts=label_counts,
        corpus_counts=total("corpus_counts"),
        index=index,
        lengths=lengths,
        shards=[shard.info for shard in shards],
    )


def write_index(folder: Path, split: str, tables: Sequence[NDArray[np.int64]]) -> FileInfo:
    """Write the block tables of all shards of a split as `folder`/SPLIT.index.npy."""
    data = npy(np.concatenate(tables).astype("<i8", copy=False))
    path = folder / f"{split}.index.npy"
    write_atomically(path, data)
    return describe_file(path.name, data)
