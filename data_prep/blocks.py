"""Blocks: consecutive whole documents as arrays, and how a stream of documents is cut into them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PER_TOKEN = ("tokens", "words", "sentences")


@dataclass(frozen=True)
class BlockData:
    """A block of D whole documents with T tokens in total."""

    tokens: NDArray[Any]
    """uint16 or uint32 [T], the raw text tokens of the documents, concatenated."""
    words: NDArray[np.bool_]
    """bool [T], True where a word starts."""
    sentences: NDArray[np.bool_]
    """bool [T], True where a sentence starts."""
    lens: NDArray[np.uint32]
    """uint32 [D], tokens of each document; their sum is T."""
    bytes: NDArray[np.uint32]
    """uint32 [D], UTF-8 bytes of each document's text."""
    documents: NDArray[np.int64]
    """int64 [D], number of each document in the input, over the whole corpus."""
    labels: NDArray[np.int32]
    """int32 [D], index in the manifest's labels, -1 for none."""
    corpora: NDArray[np.uint16]
    """uint16 [D], index in the manifest's corpora; 0 if the corpora have no names."""
    ids: NDArray[np.object_]
    """object [D], id of each document as a string; "" if the corpus keeps none, or they were not
    requested."""

    def __len__(self) -> int:
        return len(self.lens)


def cut_documents(data: BlockData, start: int, stop: int) -> BlockData:
    """Return documents [start, stop) of a block, as views."""
    if (start, stop) == (0, len(data)):
        return data
    ends = np.concatenate([[0], np.cumsum(data.lens, dtype=np.int64)])
    tokens = slice(int(ends[start]), int(ends[stop]))
    return BlockData(
        **{
            name: array[tokens if name in _PER_TOKEN else slice(start, stop)]
            for name, array in data.__dict__.items()
        }
    )


def keep_documents(data: BlockData, kept: NDArray[np.bool_]) -> BlockData:
    """Return the documents of a block for which `kept`, bool [D], is True."""
    if kept.all():
        return data
    tokens = np.repeat(kept, data.lens)
    return BlockData(
        **{
            name: array[tokens if name in _PER_TOKEN else kept]
            for name, array in data.__dict__.items()
        }
    )


def join_documents(parts: Sequence[BlockData]) -> BlockData:
    """Join the documents of several blocks into one block."""
    if len(parts) == 1:
        return parts[0]
    return BlockData(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(BlockData)
        }
    )


def block_ends(lens: NDArray[np.integer[Any]], block_tokens: int, held: int = 0) -> Iterator[int]:
    """Find where blocks end in a run of documents.

    A block ends with the document that brings it to `block_tokens`.

    Args:
        lens: tokens of each document, [D].
        block_tokens: the size of a block, in tokens.
        held: tokens that the first block already holds.

    Yields:
        For each complete block, the number of documents of the run before its end; increasing.
    """
    ends = np.cumsum(lens, dtype=np.int64)
    used = -held
    while (last := int(np.searchsorted(ends, used + block_tokens))) < len(ends):
        yield last + 1
        used = int(ends[last])


def cut_blocks(parts: Iterable[BlockData], block_tokens: int) -> Iterator[BlockData]:
    """Cut a stream of documents into blocks of whole documents; the last may hold fewer tokens.

    The blocks do not depend on how the stream is divided into parts.
    """
    pending: list[BlockData] = []
    held = 0
    for part in parts:
        start = 0
        for end in block_ends(part.lens, block_tokens, held):
            yield join_documents([*pending, cut_documents(part, start, end)])
            pending, held, start = [], 0, end
        if start < len(part):
            pending.append(cut_documents(part, start, len(part)))
            held += int(pending[-1].lens.sum())
    if pending:
        yield join_documents(pending)
