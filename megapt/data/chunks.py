"""The text of a chunk: the documents of some blocks, permuted and concatenated in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.shards import Shard
from megapt.data.corpus import Split, reading_files
from megapt.data.example import Bools, Ints, Piece
from megapt.data.order import ChunkPlan, Key
from megapt.data.random import CounterRng

Policy = Literal["fill", "whole"]


class PieceTable(NamedTuple):
    """Concatenated documents, cut into the pieces that windows consist of."""

    documents: list[int]
    """Index of each piece's document."""
    starts: list[int]
    """First token of each piece."""
    stops: list[int]
    """One past the last token of each piece, which is the start of the next piece."""


def cut_documents(lengths: Ints, longest: int) -> PieceTable:
    """Cut documents into pieces of `longest` tokens; the last piece of each holds the rest.

    Args:
        lengths: tokens of each document, int64 [D].
        longest: tokens of the longest piece.
    """
    counts = -(-lengths // longest)
    documents = np.repeat(np.arange(len(lengths)), counts)
    ends = np.cumsum(lengths)
    number = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = (ends - lengths)[documents] + number * longest
    stops = np.append(starts[1:], ends[-1:])
    return PieceTable(documents.tolist(), starts.tolist(), stops.tolist())


def cut_window(pieces: PieceTable, start: int, stop: int, policy: Policy) -> tuple[int, list[int]]:
    """Find the pieces of a chunk that belong to the window [start, stop) of its stream.

    Args:
        pieces: of the chunk: its documents for `fill`, parts of at most W tokens for `whole`.
        start: the window's first token, relative to the chunk; negative if before the chunk.
        stop: one past its last token; may be after the chunk's end.
        policy: `fill` takes the tokens [start, stop), `whole` the pieces that start there.

    Returns:
        The first of n pieces, and their bounds, [n + 1]; `fill` may cut the first and the last.
    """
    last = bisect_left(pieces.starts, stop)
    if policy == "whole":
        first = bisect_left(pieces.starts, start)
        return first, [*pieces.starts[first:last], *pieces.stops[last - 1 : last]]
    first = bisect_right(pieces.stops, start)
    bounds = [*pieces.starts[first:last], *pieces.stops[last - 1 : last]]
    if bounds:
        bounds[0], bounds[-1] = max(bounds[0], start), min(bounds[-1], stop)
    return first, bounds


class _Details(NamedTuple):
    """What objectives need in addition to tokens."""

    words: Bools
    """Starts of words, bool [C]."""
    sentences: Bools
    """Starts of sentences, bool [C]."""
    numbers: list[int]
    """Number of each document in the corpus, [D]."""
    labels: list[int]
    """Class of each document, [D]."""


class Chunk:
    """C tokens of D documents.

    The layout depends on the index only. So a skipped shard leaves gaps in place of its documents,
    and no other document moves.

    Args:
        split: the split of the blocks.
        plan: the blocks.
        key: the key of the order.
        window: W.
        policy: how documents are cut.

    Raises:
        MegaptError: if a shard cannot be read.
    """

    def __init__(
        self, split: Split, plan: ChunkPlan, key: Key, *, window: int, policy: Policy
    ) -> None:
        self.plan = plan
        self._policy: Policy = policy
        self._classes = split.classes
        # Kept open, so that the marks can be read later.
        self._blocks: list[tuple[Shard | None, int]] = []
        self._lengths: list[Ints] = []
        for number, block in plan.blocks.tolist():
            self._blocks.append((split.shard(number), block))
            documents = slice(*split.block_documents(number, block))
            self._lengths.append(split.lengths[documents].astype(np.int64))
        lengths = np.concatenate(self._lengths)
        rng = CounterRng(*key, plan.epoch, plan.span, plan.number, "documents")
        self._order = rng.permutation(len(lengths))
        permuted = lengths[self._order]
        longest = window if policy == "whole" else int(permuted.max())
        self._pieces = cut_documents(permuted, longest)
        self._stops: list[int] = np.cumsum(permuted).tolist()
        readable = np.array([shard is not None for shard, _ in self._blocks])
        counts = [len(part) for part in self._lengths]
        # Whether each document can be read; None if all can.
        self._readable: list[bool] | None = None
        if not readable.all():
            self._readable = np.repeat(readable, counts)[self._order].tolist()
        with reading_files():
            tokens = [None if s is None else s.tokens(block) for s, block in self._blocks]
        self.tokens: NDArray[Any] = self._arrange(tokens)
        """Tokens of the documents, one after another, uint16 or uint32 [C]; 0 in gaps."""
        self._cached_details: _Details | None = None

    def bounds(self, start: int, stop: int) -> tuple[int, list[int]]:
        """Return the pieces in window [start, stop) of the epoch's stream; see `cut_window`."""
        first = self.plan.start
        return cut_window(self._pieces, start - first, stop - first, self._policy)

    def text(self, start: int, stop: int) -> tuple[list[NDArray[Any]], list[int]]:
        """Return the tokens in this window, in parts, and the length of each piece."""
        first, bounds = self.bounds(start, stop)
        if self._readable is None and bounds:
            return [self.tokens[bounds[0] : bounds[-1]]], [b - a for a, b in pairwise(bounds)]
        parts = [self.tokens[a:b] for _, a, b in self._present(first, bounds)]
        return parts, [len(part) for part in parts]

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Return the pieces in this window; their arrays are views of the chunk."""
        details = self._details()
        present = self._present(*self.bounds(start, stop))
        return [self._piece(details, *piece) for piece in present]

    def _present(self, first: int, bounds: list[int]) -> list[tuple[int, int, int]]:
        """Return the document, start and stop of each piece that is not in a gap."""
        documents = self._pieces.documents[first : first + len(bounds) - 1]
        readable = self._readable
        return [
            (document, a, b)
            for document, (a, b) in zip(documents, pairwise(bounds), strict=True)
            if readable is None or readable[document]
        ]

    def _piece(self, details: _Details, document: int, start: int, stop: int) -> Piece:
        words, sentences = details.words[start:stop], details.sentences[start:stop]
        begins = self._stops[document - 1] if document else 0
        if start > begins:
            # The first token of a piece begins a word and a sentence of that piece.
            words, sentences = words.copy(), sentences.copy()
            words[0] = sentences[0] = True
        return Piece(
            tokens=self.tokens[start:stop],
            word_starts=words,
            sentence_starts=sentences,
            document=details.numbers[document],
            label=details.labels[document],
            starts_document=start == begins,
            ends_document=stop == self._stops[document],
        )

    def _details(self) -> _Details:
        if self._cached_details is None:
            marks: list[NDArray[Any] | None] = []
            numbers: list[Ints] = []
            labels: list[Ints] = []
            for (shard, block), lengths in zip(self._blocks, self._lengths, strict=True):
                if shard is None:
                    marks.append(None)
                    numbers.append(np.full(len(lengths), -1))
                    labels.append(np.full(len(lengths), -1))
                else:
                    with reading_files():
                        words, sentences = shard.marks(block)
                        numbers.append(shard.documents(block))
                        labels.append(self._classes[shard.block_labels(block)])
                    marks.append(words.view(np.uint8) | sentences.view(np.uint8) << 1)
            arranged = self._arrange(marks)
            arranged[[0, *self._stops[:-1]]] = 3
            self._cached_details = _Details(
                (arranged & 1).view(np.bool_),
                (arranged >> 1).view(np.bool_),
                np.concatenate(numbers)[self._order].tolist(),
                np.concatenate(labels)[self._order].tolist(),
            )
            self._blocks, self._lengths = [], []  # lets their shards be closed
        return self._cached_details

    def _arrange(self, blocks: list[NDArray[Any] | None]) -> NDArray[Any]:
        """Return the values of each block's tokens in the order of the chunk, [C]; 0 in gaps."""
        dtype = next((block.dtype for block in blocks if block is not None), np.dtype(np.uint16))
        documents: list[NDArray[Any]] = []
        for block, lengths in zip(blocks, self._lengths, strict=True):
            stops = np.cumsum(lengths).tolist()
            values = np.zeros(stops[-1], dtype=dtype) if block is None else block
            documents += [values[a:b] for a, b in pairwise([0, *stops])]
        return np.concatenate([documents[place] for place in self._order.tolist()])
