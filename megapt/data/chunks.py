"""The text of a chunk: the documents of some blocks, permuted and laid end to end in memory."""

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
    """Documents laid end to end, cut into the pieces that windows are made of."""

    documents: list[int]
    """Place of each piece's document."""
    starts: list[int]
    """First token of each piece."""
    stops: list[int]
    """One past its last token, which is where the next piece starts."""


def cut_documents(lengths: Ints, longest: int) -> PieceTable:
    """Cut documents into pieces of `longest` tokens, the last of each being what is left.

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
        start: the window's first token, counted from the chunk's; may lie before it.
        stop: one past its last token; may lie after the chunk's end.
        policy: `fill` takes the tokens [start, stop), `whole` the pieces that start there.

    Returns:
        The first of n pieces, and their bounds, [n + 1]; those at the ends may be cut by `fill`.
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
    """What objectives ask for beside tokens."""

    words: Bools
    """bool [C]."""
    sentences: Bools
    """bool [C]."""
    numbers: list[int]
    """Of each document, in the corpus."""
    labels: list[int]
    """Of each document."""


class Chunk:
    """C tokens of D documents.

    The layout follows from the index alone. So a shard that is left out leaves gaps where its
    documents stood, and no other document moves.

    Args:
        split: that the blocks belong to.
        plan: which blocks.
        key: of the order.
        window: W.
        policy: how documents are cut.

    Raises:
        MegaptError: a shard cannot be read.
    """

    def __init__(
        self, split: Split, plan: ChunkPlan, key: Key, *, window: int, policy: Policy
    ) -> None:
        self.plan = plan
        self._policy: Policy = policy
        self._classes = split.classes
        # Held open, so that the marks can be read later.
        self._blocks: list[tuple[Shard | None, int]] = []
        self._lengths: list[Ints] = []
        for number, block in plan.blocks.tolist():
            self._blocks.append((split.shard(number), block))
            documents = slice(*split.block_documents(number, block))
            self._lengths.append(split.lengths[documents].astype(np.int64))
        lengths = np.concatenate(self._lengths)
        rng = CounterRng(*key, plan.epoch, plan.span, plan.number, "documents")
        self._order = rng.permutation(len(lengths))
        laid = lengths[self._order]
        self._pieces = cut_documents(laid, window if policy == "whole" else int(laid.max()))
        self._stops: list[int] = np.cumsum(laid).tolist()
        here = np.array([shard is not None for shard, _ in self._blocks])
        counts = [len(part) for part in self._lengths]
        self._here: list[bool] | None = None
        if not here.all():
            self._here = np.repeat(here, counts)[self._order].tolist()
        with reading_files():
            tokens = [None if s is None else s.tokens(block) for s, block in self._blocks]
        self.tokens: NDArray[Any] = self._lay(tokens)
        """Of the documents, one after another, uint16 or uint32 [C]; 0 in the gaps."""
        self._read: _Details | None = None

    def bounds(self, start: int, stop: int) -> tuple[int, list[int]]:
        """Return the pieces in window [start, stop) of the epoch's stream; see `cut_window`."""
        first = self.plan.start
        return cut_window(self._pieces, start - first, stop - first, self._policy)

    def text(self, start: int, stop: int) -> tuple[list[NDArray[Any]], list[int]]:
        """Return the tokens in this window, in parts, and the length of each piece."""
        first, bounds = self.bounds(start, stop)
        if self._here is None and bounds:
            return [self.tokens[bounds[0] : bounds[-1]]], [b - a for a, b in pairwise(bounds)]
        parts = [self.tokens[a:b] for _, a, b in self._present(first, bounds)]
        return parts, [len(part) for part in parts]

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Return the pieces in this window; their arrays are views of the chunk."""
        details = self._details()
        present = self._present(*self.bounds(start, stop))
        return [self._piece(details, *piece) for piece in present]

    def _present(self, first: int, bounds: list[int]) -> list[tuple[int, int, int]]:
        """Return document, start and stop of each piece that is not in a gap."""
        documents = self._pieces.documents[first : first + len(bounds) - 1]
        here = self._here
        return [
            (document, a, b)
            for document, (a, b) in zip(documents, pairwise(bounds), strict=True)
            if here is None or here[document]
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
        if self._read is None:
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
            laid = self._lay(marks)
            laid[[0, *self._stops[:-1]]] = 3
            self._read = _Details(
                (laid & 1).view(np.bool_),
                (laid >> 1).view(np.bool_),
                np.concatenate(numbers)[self._order].tolist(),
                np.concatenate(labels)[self._order].tolist(),
            )
            self._blocks, self._lengths = [], []  # Their shards may be closed now.
        return self._read

    def _lay(self, blocks: list[NDArray[Any] | None]) -> NDArray[Any]:
        """Return values of the tokens of each block in the order of the chunk, [C]; 0 in gaps."""
        dtype = next((block.dtype for block in blocks if block is not None), np.dtype(np.uint16))
        documents: list[NDArray[Any]] = []
        for block, lengths in zip(blocks, self._lengths, strict=True):
            stops = np.cumsum(lengths).tolist()
            values = np.zeros(stops[-1], dtype=dtype) if block is None else block
            documents += [values[a:b] for a, b in pairwise([0, *stops])]
        return np.concatenate([documents[place] for place in self._order.tolist()])
