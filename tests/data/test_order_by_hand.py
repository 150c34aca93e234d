"""The order once more, as docs/loading.md defines it: plain loops without code of megapt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.manifest import Manifest
from data_prep.shards import open_shards
from megapt.data import Corpus, WindowStream

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def permuted(items: list[Any], *key: int | str) -> list[Any]:
    folded = 0
    for part in key:
        if isinstance(part, str):
            digest = hashlib.blake2b(part.encode(), digest_size=8).digest()
            part = int.from_bytes(digest, "little")
        folded = mix(((folded ^ part) + GOLDEN) & MASK)
    draws = [mix((folded + (i + 1) * GOLDEN) & MASK) for i in range(len(items))]
    return [items[i] for i in sorted(range(len(items)), key=lambda i: draws[i])]


def groups(items: list[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    for first in range(0, len(items), size):
        yield first // size, items[first : first + size]


def read_documents(folder: Path) -> list[list[list[list[int]]]]:
    """The tokens of each document of each block of each shard."""
    shards = []
    for shard in open_shards(folder, Manifest.load(folder).splits["train"]):
        blocks = [shard.block(i) for i in range(len(shard))]
        shards.append(
            [[part.tolist() for part in np.split(b.tokens, np.cumsum(b.lens)[:-1])] for b in blocks]
        )
    return shards


def epoch_by_hand(
    shards: list[Any], key: tuple[Any, ...], epoch: int, settings: dict[str, Any]
) -> list[list[int]]:
    """The text of the windows of an epoch, in the order in which a run reads them."""
    window, lanes = settings["window"], settings["lanes"]
    stream: list[list[int]] = []
    chunk_starts = [0]
    for span, mine in groups(
        permuted(shards, *key, epoch, "shards"), settings["shuffle_buffer_shards"]
    ):
        blocks = permuted([block for shard in mine for block in shard], *key, epoch, span, "blocks")
        for chunk, mixed in groups(blocks, settings["shuffle_buffer_blocks"]):
            documents = [document for block in mixed for document in block]
            stream += permuted(documents, *key, epoch, span, chunk, "documents")
            chunk_starts.append(chunk_starts[-1] + sum(map(len, documents)))
    count = -(-chunk_starts[-1] // window)
    texts: list[list[int]] = [[] for _ in range(count)]
    place = 0
    for document in stream:
        for first in range(0, len(document), window):
            piece = document[first : first + window]
            if settings["window_policy"] == "whole":
                texts[place // window] += piece
                place += len(piece)
            else:
                for token in piece:
                    texts[place // window].append(token)
                    place += 1
    numbers = range(epoch * count, (epoch + 1) * count)
    walks, start = [], 0
    for lane in range(lanes):
        stop = start + sum(number % lanes == lane for number in numbers)
        inside = {-(-token // window) for token in chunk_starts}
        borders = sorted({start, stop, *(b for b in inside if start < b < stop)})
        walk = [
            index
            for a, b in pairwise(borders)
            for index in permuted(list(range(a, b)), *key, epoch, a, "windows")
        ]
        walks.append(iter(walk))
        start = stop
    return [texts[next(walks[number % lanes])] for number in numbers]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_policy": "whole"},
        {"window_policy": "whole", "window": 500, "lanes": 7, "shuffle_buffer_blocks": 1},
        {"window": 17, "lanes": 1, "shuffle_buffer_shards": 1},
        {"shuffle_buffer_shards": 50, "shuffle_buffer_blocks": 1000},
        {"window": 3000, "lanes": 40},
    ],
    ids=json.dumps,
)
def test_the_page_defines_the_order(
    corpus: Corpus,
    corpus_folder: Path,
    make_stream: Callable[..., WindowStream],
    changes: dict[str, Any],
) -> None:
    settings = {
        "window": 64,
        "window_policy": "fill",
        "lanes": 4,
        "shuffle_buffer_shards": 2,
        "shuffle_buffer_blocks": 3,
        **changes,
    }
    stream = make_stream(seed=9, **settings)
    shards = read_documents(corpus_folder)
    key = (9, corpus.fingerprint, "train")
    for epoch in (0, 1, 5):
        numbers = range(epoch * stream.count, (epoch + 1) * stream.count)
        read = [
            [token for piece in window.pieces for token in piece.tokens.tolist()]
            for window in stream.windows(numbers)
        ]
        assert read == epoch_by_hand(shards, key, epoch, settings)
