"""The text of the windows, in the order that `megapt.data.order` computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megapt.data.chunks import Chunk, Policy
from megapt.data.corpus import Split
from megapt.data.example import Ints, Window
from megapt.data.order import ChunkPlan, WindowOrder
from megapt.data.random import derive_key
from megapt.data.state import Skipped, WindowId


class Stream(Protocol):
    """A sequence of windows of one or several corpora, numbered from 0."""

    @property
    def name(self) -> str:
        """Name of the split."""

    @property
    def window_size(self) -> int:
        """W, in raw tokens."""

    @property
    def count(self) -> int:
        """Number of windows in an epoch."""

    @property
    def total(self) -> int | None:
        """Number of windows in the sequence; None if it has no end."""

    @property
    def keys(self) -> Sequence[int]:
        """Key of the draws of each corpus: 64 bits, hashed from its fingerprint."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the order depends on, as JSON values."""

    @property
    def skipped(self) -> Skipped:
        """Shards that this process skips."""

    def skip(self, skipped: Skipped) -> None:
        """Skip these shards from the start."""

    def epochs(self, windows: int) -> dict[str, float]:
        """Return the epochs of each corpus after `windows` windows: `epoch` or `epoch/NAME`."""

    def lanes(self, numbers: Ints) -> Ints:
        """Return the lane that reads each window, int64 [n]."""

    def ids(self, numbers: Sequence[int]) -> list[WindowId]:
        """Return the identity of each window."""

    def windows(self, numbers: Sequence[int]) -> list[Window]:
        """Read windows."""

    def text(self, numbers: Sequence[int]) -> tuple[NDArray[Any], Ints]:
        """Read only the tokens of windows; see `WindowStream.text`."""


def in_lane_order(stream: Stream, numbers: Ints) -> Ints:
    """Return the window numbers sorted by lane, so that a rank reads few lanes, int64 [n]."""
    return numbers[np.argsort(stream.lanes(numbers), kind="stable")]


class WindowStream:
    """The endless sequence of windows of one split of one corpus.

    It keeps at most two chunks in memory for each lane that is read.

    Args:
        split: the documents.
        fingerprint: fingerprint of the corpus; it keys the order together with the seed.
        seed: seed of the run.
        window: W, in raw tokens.
        window_policy: how documents are cut.
        shuffle_buffer_shards: shards whose blocks are shuffled together.
        shuffle_buffer_blocks: blocks whose documents are shuffled together.
        lanes: places of the corpus that are read in parallel.
        corpus: number and name of the corpus, if there are several.
    """

    total = None

    def __init__(
        self,
        split: Split,
        fingerprint: str,
        *,
        seed: int,
        window: int,
        window_policy: Policy,
        shuffle_buffer_shards: int,
        shuffle_buffer_blocks: int,
        lanes: int,
        corpus: tuple[int, str] = (0, "corpus"),
    ) -> None:
        self.split = split
        self.name = split.name
        self.window_size = window
        self.keys = (derive_key(fingerprint),)
        self.identity = {
            "split": split.name,
            "fingerprint": fingerprint,
            "seed": seed,
            "window": window,
            "window_policy": window_policy,
            "shuffle_buffer_shards": shuffle_buffer_shards,
            "shuffle_buffer_blocks": shuffle_buffer_blocks,
            "lanes": lanes,
        }
        self._number, self._corpus = corpus
        self._policy: Policy = window_policy
        self._key = (seed, fingerprint, split.name)
        self.order = WindowOrder(
            split.shard_tokens,
            split.block_tokens,
            self._key,
            window=window,
            shuffle_buffer_shards=shuffle_buffer_shards,
            shuffle_buffer_blocks=shuffle_buffer_blocks,
            lanes=lanes,
        )
        self.count = self.order.count
        """Windows of an epoch, N = ceil(tokens / W)."""
        # Of each lane the last used chunk and the one before: a window may need both.
        self._chunks: dict[int, list[Chunk]] = {}

    @property
    def skipped(self) -> Skipped:
        """Shards that this process skips."""
        found = self.split.store.skipped
        return {self._corpus: dict(found)} if found else {}

    def skip(self, skipped: Skipped) -> None:
        """Skip these shards from the start."""
        self.split.store.skip(skipped.get(self._corpus, {}))
        self._chunks.clear()

    def epochs(self, windows: int) -> dict[str, float]:
        """Return how often the corpus has been read after `windows` windows."""
        return {"epoch": windows / self.count}

    def lanes(self, numbers: Ints) -> Ints:
        """Return the lane that reads each window, int64 [n]."""
        return numbers % self.order.lanes

    def ids(self, numbers: Sequence[int]) -> list[WindowId]:
        """Return the identity of each window."""
        return [(number, self.keys[0], *self.order.locate(number)) for number in numbers]

    def windows(self, numbers: Sequence[int]) -> list[Window]:
        """Read the windows with these numbers in the endless sequence."""
        lanes = self.order.lanes
        return [self.window(*self.order.locate(n), lane=n % lanes) for n in numbers]

    def window(self, epoch: int, index: int, *, lane: int = -1) -> Window:
        """Read window `index` of the stream of `epoch`.

        Args:
            epoch: number of the epoch.
            index: 0 to `count` - 1.
            lane: lane that keeps the chunks.

        Raises:
            IndexError: if the epoch has no such window.
            MegaptError: if a shard cannot be read.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"epoch {epoch} has windows 0 to {self.count - 1}, not {index}")
        start = index * self.window_size
        stop = start + self.window_size
        pieces = [
            piece
            for chunk in self._chunks_of(epoch, start, stop, lane)
            for piece in chunk.pieces(start, stop)
        ]
        return Window(epoch, index, tuple(pieces), self._number)

    def text(self, numbers: Sequence[int]) -> tuple[NDArray[Any], Ints]:
        """Read only the tokens of windows, without the other fields of pieces.

        Returns:
            The tokens of all windows, concatenated, uint16 or uint32 [n]; and the first index of
            each piece plus the end, int64 [pieces + 1].
        """
        tokens: list[NDArray[Any]] = [np.zeros(0, dtype=np.uint16)]
        lengths = [0]
        for number in numbers:
            epoch, index = self.order.locate(number)
            start = index * self.window_size
            stop = start + self.window_size
            for chunk in self._chunks_of(epoch, start, stop, number % self.order.lanes):
                parts, piece_lengths = chunk.text(start, stop)
                tokens += parts
                lengths += piece_lengths
        return np.concatenate(tokens), np.cumsum(lengths)

    def _chunks_of(self, epoch: int, start: int, stop: int, lane: int) -> Iterator[Chunk]:
        """Yield the chunks that hold the tokens [start, stop) of the epoch's stream."""
        stop = min(stop, self.order.tokens)
        while start < stop:
            chunk = self._chunk(epoch, start, lane)
            yield chunk
            start = chunk.plan.stop

    def _chunk(self, epoch: int, token: int, lane: int) -> Chunk:
        chunks = self._chunks.setdefault(lane, [])
        if not (chunks and chunks[-1].plan.holds(epoch, token)):
            self._switch_chunk(epoch, token, chunks)
        return chunks[-1]

    def _switch_chunk(self, epoch: int, token: int, chunks: list[Chunk]) -> None:
        """Make the chunk with this token the last one in a lane's `chunks`."""
        if chunks and chunks[0].plan.holds(epoch, token):
            chunks.reverse()
            return
        del chunks[:-1]  # before the next one is read, so that never three are in memory
        # The last chunk of a lane may be the first one of another.
        of_all_lanes = chain.from_iterable(self._chunks.values())
        found = next((chunk for chunk in of_all_lanes if chunk.plan.holds(epoch, token)), None)
        chunks.append(found or self._read(self.order.chunk(epoch, token)))

    def _read(self, plan: ChunkPlan) -> Chunk:
        plans = [plan, *(chunks[-1].plan for chunks in self._chunks.values() if chunks)]
        spans = dict.fromkeys((p.epoch, p.span + ahead) for ahead in (0, 1) for p in plans)
        shards = np.concatenate([self.order.span_shards(*span) for span in spans])
        self.split.store.fetch_ahead(dict.fromkeys(shards.tolist()))
        return Chunk(self.split, plan, self._key, window=self.window_size, policy=self._policy)
