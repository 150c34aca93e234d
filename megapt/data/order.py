"""The order of the windows, computed from counts and keyed by (seed, fingerprint, split).

An epoch arranges all text of a split in one stream:

1. the shards are permuted, and consecutive ones form *spans* of `shuffle_buffer_shards`;
2. the blocks of a span are permuted, and consecutive ones form *chunks* of `shuffle_buffer_blocks`;
3. the documents of a chunk are permuted (`megapt.data.chunks`, the only step that needs lengths).

The stream of T tokens is cut every W tokens into N = ceil(T / W) windows. N is the same in every
epoch, so window n of the endless sequence is in epoch n // N and nothing has to be replayed to
find it. The windows 0 ... N - 1 of the stream are divided into L runs of (almost) the same length,
the *lanes*. Window n of the sequence is the next one of lane n mod L. A lane reads its run chunk
by chunk; inside a chunk its windows are permuted.

So a batch draws from L places of the corpus, each place is read sequentially, and L chunks are
mixed in memory, however large the corpus is. All permutations are argsorts of the counter-based
draws of `megapt.data.random`. The time of a seek grows with the number of shards and with the
blocks of one span per lane, but not with the steps done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from megapt.data.example import Ints
from megapt.data.random import CounterRng

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class ChunkPlan:
    """A chunk: its blocks, and the range of its tokens in the stream of the epoch."""

    epoch: int
    span: int
    number: int
    """Number of the chunk in its span."""
    blocks: Ints
    """Shard, and block in the shard, of each block in order, int64 [blocks, 2]."""
    start: int
    """First token of the chunk in the stream."""
    stop: int
    """One past its last token."""

    def holds(self, epoch: int, token: int) -> bool:
        """Return whether this token of the epoch's stream is in the chunk."""
        return epoch == self.epoch and self.start <= token < self.stop


@dataclass(frozen=True)
class _LaneWindows:
    """The windows of a chunk that one lane reads, and their order."""

    start: int
    stop: int
    order: list[int]


class WindowOrder:
    """Maps window n of the sequence to its epoch, and tokens of an epoch to blocks.

    Args:
        shard_tokens: tokens of each shard, int64 [shards].
        block_tokens: returns the tokens of each block of a shard, int64 [blocks].
        key: beginning of the keys of all draws.
        window: W, in tokens.
        shuffle_buffer_shards: shards in a span.
        shuffle_buffer_blocks: blocks in a chunk.
        lanes: L.
    """

    def __init__(
        self,
        shard_tokens: Ints,
        block_tokens: Callable[[int], Ints],
        key: Key,
        *,
        window: int,
        shuffle_buffer_shards: int,
        shuffle_buffer_blocks: int,
        lanes: int,
    ) -> None:
        self.window = window
        self.lanes = lanes
        self.tokens = int(shard_tokens.sum())
        """T, tokens of an epoch."""
        self.count = -(-self.tokens // window)
        """N, windows of an epoch."""
        self._shard_tokens = shard_tokens
        self._block_tokens = block_tokens
        self._key = key
        self._span_shards = shuffle_buffer_shards
        self._chunk_blocks = shuffle_buffer_blocks
        self._spans = lru_cache(maxsize=3)(self._plan_spans)
        self._span = lru_cache(maxsize=2 * lanes + 2)(self._plan_span)
        self._lane_starts = lru_cache(maxsize=3)(self._plan_lanes)
        # Of each lane the epoch and the windows that it reads at present.
        self._current: dict[int, tuple[int, _LaneWindows]] = {}

    def locate(self, number: int) -> tuple[int, int]:
        """Return (epoch, index in the epoch's stream) of window `number` of the sequence."""
        epoch, in_epoch = divmod(number, self.count)
        lane = number % self.lanes
        first = (lane - epoch * self.count) % self.lanes
        place = self._lane_starts(epoch)[lane] + (in_epoch - first) // self.lanes
        current = self._current.get(lane)
        if (
            current is None
            or current[0] != epoch
            or not current[1].start <= place < current[1].stop
        ):
            current = epoch, self._lane_windows(epoch, lane, place)
            self._current[lane] = current
        windows = current[1]
        return epoch, windows.start + windows.order[place - windows.start]

    def chunk(self, epoch: int, token: int) -> ChunkPlan:
        """Return the chunk that holds a token of the epoch's stream.

        Raises:
            IndexError: if the stream has no such token.
        """
        if not 0 <= token < self.tokens:
            raise IndexError(f"epoch {epoch} has tokens 0 to {self.tokens - 1}, not {token}")
        span = bisect_right(self._spans(epoch)[1], token) - 1
        blocks, starts = self._span(epoch, span)
        number = bisect_right(starts, token) - 1
        size = self._chunk_blocks
        return ChunkPlan(
            epoch,
            span,
            number,
            blocks[number * size : (number + 1) * size],
            starts[number],
            starts[number + 1],
        )

    def span_shards(self, epoch: int, span: int) -> Ints:
        """Return the shards of a span, int64; none after the last span."""
        size = self._span_shards
        return self._spans(epoch)[0][span * size : (span + 1) * size]

    def _plan_spans(self, epoch: int) -> tuple[Ints, list[int]]:
        """Return the epoch's order of shards, and the first token of each span plus the end."""
        shards = CounterRng(*self._key, epoch, "shards").permutation(len(self._shard_tokens))
        ends = np.cumsum(self._shard_tokens[shards])
        last = np.arange(self._span_shards - 1, len(ends) - 1, self._span_shards)
        return shards, [0, *ends[last].tolist(), int(ends[-1])]

    def _plan_span(self, epoch: int, span: int) -> tuple[Ints, list[int]]:
        """Return the span's blocks in order, and the first token of each chunk plus the end."""
        shards = self.span_shards(epoch, span)
        tokens = [self._block_tokens(int(shard)) for shard in shards]
        counts = [len(blocks) for blocks in tokens]
        blocks = np.stack(
            [np.repeat(shards, counts), np.concatenate([np.arange(n) for n in counts])], axis=1
        )
        order = CounterRng(*self._key, epoch, span, "blocks").permutation(len(blocks))
        ends = np.cumsum(np.concatenate(tokens)[order]) + self._spans(epoch)[1][span]
        last = np.arange(self._chunk_blocks - 1, len(ends) - 1, self._chunk_blocks)
        starts = [self._spans(epoch)[1][span], *ends[last].tolist(), int(ends[-1])]
        return blocks[order], starts

    def _plan_lanes(self, epoch: int) -> list[int]:
        """Return the first window of each lane, plus the end."""
        first = [(lane - epoch * self.count) % self.lanes for lane in range(self.lanes)]
        return [0, *accumulate(-(-(self.count - place) // self.lanes) for place in first)]

    def _lane_windows(self, epoch: int, lane: int, place: int) -> _LaneWindows:
        """Return the windows that a lane permutes together with the one at `place`."""
        chunk = self.chunk(epoch, place * self.window)
        lanes = self._lane_starts(epoch)
        start = max(-(-chunk.start // self.window), lanes[lane])
        stop = min(-(-chunk.stop // self.window), lanes[lane + 1])
        order = CounterRng(*self._key, epoch, start, "windows").permutation(stop - start)
        return _LaneWindows(start, stop, order.tolist())
