"""Orders of an epoch on the lengths of a simulated corpus; `shuffling.py` rates them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from megapt.data.order import WindowOrder
from megapt.data.random import CounterRng

Ints = NDArray[np.int64]

SHARDS = 64
BLOCKS = 16  # Per shard.
BLOCK_TOKENS = 1 << 17
WINDOW = 2048
KEY = (0, "simulated", "train")


class Simulated:
    """A corpus of 64 shards of 16 blocks of 131,072 tokens, as lengths of documents."""

    def __init__(self) -> None:
        self.tokens = SHARDS * BLOCKS * BLOCK_TOKENS
        """Tokens T of the corpus."""
        self.windows = self.tokens // WINDOW
        """Windows N = T / W of an epoch."""
        rng = np.random.default_rng(0)
        drawn = rng.lognormal(np.log(1000) - 0.5, 1.0, self.tokens // 500).astype(np.int64) + 1
        # Every block is full: a document that would cross its end stops there.
        ends = np.cumsum(drawn)
        borders = np.arange(1, SHARDS * BLOCKS + 1) * BLOCK_TOKENS
        ends = np.union1d(ends[ends < self.tokens], borders)
        self.lengths: Ints = np.diff(ends, prepend=0)
        """Tokens of each document, log-normal with a mean of 1,000, int64 [documents]."""
        self.starts: Ints = ends - self.lengths
        """First token of each document in the corpus, int64 [documents]."""
        self.block_starts: Ints = np.searchsorted(self.starts, [0, *borders])
        """First document of each block, and the end, int64 [blocks + 1]."""

    def documents(self, first: int, last: int) -> Ints:
        """Return the documents of blocks `first` to `last` - 1."""
        return np.arange(self.block_starts[first], self.block_starts[last])


class Reading(NamedTuple):
    """An order of an epoch."""

    documents: Ints
    """Documents in the order of the text that is cut into windows, int64 [documents]."""
    windows: Ints
    """Windows of that text in the order of delivery, int64 [windows]."""
    mixed: int
    """Tokens that the shuffle chooses from at any time."""


Order = Callable[[Simulated], Reading]


def in_order(corpus: Simulated) -> Reading:
    """Return the order of the corpus without shuffling."""
    return Reading(np.arange(len(corpus.lengths)), np.arange(corpus.windows), WINDOW)


def all_documents(corpus: Simulated) -> Reading:
    """Return a uniform shuffle of all documents."""
    shuffled = np.random.default_rng(1).permutation(len(corpus.lengths))
    return Reading(shuffled, np.arange(corpus.windows), corpus.tokens)


def all_windows(corpus: Simulated) -> Reading:
    """Return a uniform shuffle of windows that are cut from the unshuffled corpus."""
    shuffled = np.random.default_rng(1).permutation(corpus.windows)
    return in_order(corpus)._replace(windows=shuffled, mixed=corpus.tokens)


def buffered(corpus: Simulated, size: int) -> Reading:
    """Return the order of webdataset: shards shuffled, documents through a buffer, then windows.

    First the buffer is filled. Then each incoming document replaces a random document of the
    buffer, which is delivered.
    """
    rng = np.random.default_rng(1)
    parts = [
        corpus.documents(shard * BLOCKS, (shard + 1) * BLOCKS) for shard in rng.permutation(SHARDS)
    ]
    coming = np.concatenate(parts).tolist()
    buffer, out = coming[:size], []
    for document, place in zip(
        coming[size:], rng.integers(0, size, len(coming)).tolist(), strict=False
    ):
        out.append(buffer[place])
        buffer[place] = document
    documents = np.array([*out, *rng.permutation(buffer).tolist()])
    mixed = int(size * corpus.lengths.mean())
    return in_order(corpus)._replace(documents=documents, mixed=mixed)


def expanded(corpus: Simulated, spread: int) -> Reading:
    """Return the order of MosaicML's py1e on one node.

    Windows are cut before shuffling and shards are in random order. Each window is moved by a
    uniform random distance, so that the windows of a shard spread over about `spread` places.
    """
    rng = np.random.default_rng(1)
    size = corpus.windows // SHARDS
    shards = rng.permutation(SHARDS)
    ids = np.concatenate([shard * size + rng.permutation(size) for shard in shards])
    places = np.arange(corpus.windows, dtype=np.float64)
    for first in range(0, corpus.windows, size):
        reach = max(0.0, (rng.integers(int(0.75 * spread), int(1.25 * spread)) - size) / 2)
        low, high = max(-reach, -first), min(reach, corpus.windows - first - size)
        places[first : first + size] += rng.uniform(low, high, size)
    return in_order(corpus)._replace(windows=ids[np.argsort(places)], mixed=spread * WINDOW)


def here(corpus: Simulated, span: int, blocks: int, lanes: int) -> Reading:
    """Return the order of `megapt.data` in its first epoch."""
    order = WindowOrder(
        np.full(SHARDS, BLOCKS * BLOCK_TOKENS),
        lambda shard: np.full(BLOCKS, BLOCK_TOKENS),
        KEY,
        window=WINDOW,
        shuffle_buffer_shards=span,
        shuffle_buffer_blocks=blocks,
        lanes=lanes,
    )
    parts, token = [], 0
    while token < order.tokens:
        chunk = order.chunk(0, token)
        numbers = chunk.blocks[:, 0] * BLOCKS + chunk.blocks[:, 1]
        documents = np.concatenate([corpus.documents(n, n + 1) for n in numbers.tolist()])
        rng = CounterRng(*KEY, 0, chunk.span, chunk.number, "documents")
        parts.append(documents[rng.permutation(len(documents))])
        token = chunk.stop
    windows = np.array([order.locate(number)[1] for number in range(order.count)])
    return Reading(np.concatenate(parts), windows, lanes * blocks * BLOCK_TOKENS)
