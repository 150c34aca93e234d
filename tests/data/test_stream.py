"""The stream of windows: all text once an epoch, in an order that nothing but its key decides."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest

from megapt.data import Corpus, Piece, Split, Window, WindowStream, derive_key
from megapt.data.chunks import Chunk
from tests.corpora import make_documents

MakeStream = Callable[..., WindowStream]
Text = list[tuple[int, list[int]]]

policies = pytest.mark.parametrize("policy", ["fill", "whole"])


def read_epoch(stream: WindowStream, epoch: int = 0) -> list[Window]:
    """The windows of an epoch as the sequence gives them."""
    return stream.windows(range(epoch * stream.count, (epoch + 1) * stream.count))


def text_of(window: Window) -> Text:
    return [(piece.document, piece.tokens.tolist()) for piece in window.pieces]


def texts_of(windows: Sequence[Window]) -> list[Text]:
    return [text_of(window) for window in windows]


def pieces_by_document(windows: Sequence[Window]) -> dict[int, list[Piece]]:
    """The pieces of each document in the order of the epoch's stream."""
    found: dict[int, list[Piece]] = defaultdict(list)
    for window in sorted(windows, key=lambda window: (window.epoch, window.index)):
        for piece in window.pieces:
            found[piece.document].append(piece)
    return found


def assert_holds_every_token_once(stream: WindowStream, epoch: int, split: Split) -> None:
    windows = read_epoch(stream, epoch)
    assert sorted(w.index for w in windows) == list(range(stream.count))
    assert {window.epoch for window in windows} == {epoch}
    found = pieces_by_document(windows)
    assert len(found) == len(split)
    for place in range(len(split)):
        document = split.piece(place)
        pieces = found[document.document]
        assert np.concatenate([p.tokens for p in pieces]).tolist() == document.tokens.tolist()
        assert [p.starts_document for p in pieces] == [True] + [False] * (len(pieces) - 1)
        assert [p.ends_document for p in pieces] == [False] * (len(pieces) - 1) + [True]
        assert {piece.label for piece in pieces} == {document.label}


SETTINGS = [
    {},
    {"window": 16, "shuffle_buffer_shards": 1, "shuffle_buffer_blocks": 1, "lanes": 1},
    {"window": 64, "shuffle_buffer_shards": 100, "shuffle_buffer_blocks": 100, "lanes": 7},
    {"window": 333, "shuffle_buffer_shards": 3, "shuffle_buffer_blocks": 2, "lanes": 2},
    {"window": 1024, "shuffle_buffer_shards": 1, "shuffle_buffer_blocks": 8, "lanes": 3},
    {"window": 5000, "shuffle_buffer_shards": 2, "shuffle_buffer_blocks": 1, "lanes": 8},
    {"window": 10**6, "lanes": 16},
]


@policies
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_token_comes_once_an_epoch(
    corpus: Corpus, make_stream: MakeStream, policy: str, settings: dict[str, int]
) -> None:
    stream = make_stream(window_policy=policy, **settings)
    assert stream.count == -(-corpus.train.info.tokens // stream.window_size)
    for epoch in (0, 3):
        assert_holds_every_token_once(stream, epoch, corpus.train)


@pytest.mark.parametrize("settings", SETTINGS)
def test_windows_of_fill_are_full_but_for_the_last(
    corpus: Corpus, make_stream: MakeStream, settings: dict[str, int]
) -> None:
    stream = make_stream(**settings)
    windows = sorted(read_epoch(stream), key=lambda window: window.index)
    assert {window.raw_tokens for window in windows[:-1]} <= {stream.window_size}
    assert sum(window.raw_tokens for window in windows) == corpus.train.info.tokens


@pytest.mark.parametrize("settings", SETTINGS)
def test_windows_of_whole_cut_no_document_that_fits(
    corpus: Corpus, make_stream: MakeStream, settings: dict[str, int]
) -> None:
    stream = make_stream(window_policy="whole", **settings)
    size = stream.window_size
    windows = sorted(read_epoch(stream), key=lambda window: window.index)
    assert all(window.pieces for window in windows[:-1])
    for window in windows:
        assert window.raw_tokens < 2 * size
        assert all(len(piece.tokens) <= size for piece in window.pieces)
    for pieces in pieces_by_document(windows).values():
        assert all(len(piece.tokens) == size for piece in pieces[:-1])


def test_epochs_hold_the_same_documents_in_another_order(make_stream: MakeStream) -> None:
    epochs = [read_epoch(make_stream(), epoch) for epoch in range(3)]
    orders = [list(pieces_by_document(windows)) for windows in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"fingerprint": "another"},
        {"window": 65},
        {"window_policy": "whole"},
        {"shuffle_buffer_shards": 1},
        {"shuffle_buffer_blocks": 2},
        {"lanes": 5},
    ],
)
def test_every_argument_changes_the_order_and_the_identity(
    make_stream: MakeStream, change: dict[str, object]
) -> None:
    usual, changed = make_stream(), make_stream(**change)
    assert texts_of(read_epoch(usual)) != texts_of(read_epoch(changed))
    differing = {key for key, value in usual.identity.items() if changed.identity[key] != value}
    assert differing == set(change)


def test_the_identity_survives_json(make_stream: MakeStream) -> None:
    identity = make_stream().identity
    assert json.loads(json.dumps(identity)) == identity


@policies
def test_windows_do_not_depend_on_the_order_of_asking(make_stream: MakeStream, policy: str) -> None:
    walked = make_stream(window_policy=policy)
    numbers = list(range(2 * walked.count))
    forward = texts_of(walked.windows(numbers))
    jumping = make_stream(window_policy=policy)
    shuffled = np.random.default_rng(0).permutation(numbers).tolist()
    assert {n: text_of(jumping.windows([n])[0]) for n in shuffled} == dict(enumerate(forward))
    places = [walked.order.locate(number) for number in numbers]
    assert [text_of(jumping.window(*place)) for place in places] == forward


def test_far_windows_are_read_without_those_before(make_stream: MakeStream) -> None:
    stream = make_stream()
    far = 10**12
    (window,) = stream.windows([far])
    assert (window.epoch, window.index) == stream.order.locate(far)
    assert window.epoch == far // stream.count
    assert window.raw_tokens


def test_ids_name_number_corpus_epoch_and_index(make_stream: MakeStream) -> None:
    stream = make_stream(fingerprint="abc")
    numbers = [5, stream.count + 2, 0]
    assert stream.ids(numbers) == [
        (number, derive_key("abc"), *stream.order.locate(number)) for number in numbers
    ]


@policies
@pytest.mark.parametrize("settings", SETTINGS)
def test_plain_text_is_that_of_the_windows(
    make_stream: MakeStream, policy: str, settings: dict[str, int]
) -> None:
    stream = make_stream(window_policy=policy, **settings)
    numbers = np.random.default_rng(0).integers(0, 2 * stream.count, 40).tolist()
    tokens, starts = make_stream(window_policy=policy, **settings).text(numbers)
    pieces = [piece for window in stream.windows(numbers) for piece in window.pieces]
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == [token for piece in pieces for token in piece.tokens]
    assert starts.dtype == np.int64
    assert starts.tolist() == np.cumsum([0, *(len(p.tokens) for p in pieces)]).tolist()


def test_no_windows_have_no_text(make_stream: MakeStream) -> None:
    tokens, starts = make_stream().text([])
    assert (tokens.tolist(), starts.tolist()) == ([], [0])


@policies
def test_a_window_reads_on_in_the_next_chunk(make_stream: MakeStream, policy: str) -> None:
    stream = make_stream(window_policy=policy, shuffle_buffer_blocks=1, window=100)
    chunks = {piece: chunk for chunk, pieces in _documents(stream).items() for piece in pieces}
    crossing = 0
    for index in range(stream.count):
        start = index * 100
        first = stream.order.chunk(0, start)
        found = [chunks[piece.document] for piece in stream.window(0, index).pieces]
        assert found == sorted(found)
        if policy == "fill":
            last = stream.order.chunk(0, min(start + 99, stream.order.tokens - 1))
            assert (found[0], found[-1]) == (first.start, last.start)
        crossing += len(set(found)) > 1
    assert crossing > 5


def _documents(stream: WindowStream) -> dict[int, list[int]]:
    """First token of each chunk of epoch 0 -> its documents."""
    found, token = {}, 0
    while token < stream.order.tokens:
        plan = stream.order.chunk(0, token)
        shards = [(stream.split.shard(number), block) for number, block in plan.blocks.tolist()]
        found[plan.start] = [n for shard, block in shards if shard for n in shard.documents(block)]
        token = plan.stop
    return found


def test_windows_of_a_chunk_are_shuffled(make_stream: MakeStream) -> None:
    """Neighbors in a long document must not stand beside each other in the epoch."""
    windows = read_epoch(make_stream(window=16, shuffle_buffer_blocks=100, lanes=1))
    beside = sum(a.index + 1 == b.index for a, b in pairwise(windows))
    assert beside < 0.05 * len(windows)


@pytest.mark.parametrize("index", [-1, 10**6])
def test_an_index_outside_the_epoch_is_refused(make_stream: MakeStream, index: int) -> None:
    with pytest.raises(IndexError, match="epoch 0 has windows 0 to"):
        make_stream().window(0, index)


def test_an_epoch_of_a_split_does_not_touch_the_other(
    corpus: Corpus, make_stream: MakeStream
) -> None:
    train = pieces_by_document(read_epoch(make_stream("train")))
    valid = pieces_by_document(read_epoch(make_stream("valid")))
    assert not set(train) & set(valid)
    assert len(train) + len(valid) == corpus.manifest.source_documents


def test_shards_of_all_lanes_are_asked_for_before_they_are_read(
    make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First those of the chunk at hand, then those that the lanes are in, then the next ones."""
    stream = make_stream(lanes=2, shuffle_buffer_shards=1, shuffle_buffer_blocks=1)
    asked: list[list[int]] = []
    monkeypatch.setattr(stream.split.store, "fetch_ahead", lambda numbers: asked.append([*numbers]))
    stream.windows([0])
    stream.windows([1])
    spans = [stream.order.span_shards(0, span).tolist()[:1] for span in range(6)]
    plans = [stream.order.chunk(0, stream.order.locate(n)[1] * 64) for n in (0, 1)]
    one, other = (plan.span for plan in plans)
    assert one != other
    assert asked[0] == [*spans[one], *spans[one + 1]]
    expected = [*spans[other], *spans[one], *spans[other + 1], *spans[one + 1]]
    assert asked[-1] == list(dict.fromkeys(expected))


class Count:
    """Chunks that were made, and the most that were in memory at once."""

    def __init__(self) -> None:
        self.alive: WeakSet[Chunk] = WeakSet()
        self.most = self.made = 0

    def make(self, *args: Any, **kwargs: Any) -> Chunk:
        chunk = Chunk(*args, **kwargs)
        self.alive.add(chunk)
        self.made += 1
        self.most = max(self.most, len(self.alive))
        return chunk


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Count:
    count = Count()
    monkeypatch.setattr("megapt.data.stream.Chunk", count.make)
    return count


@policies
@pytest.mark.parametrize("lanes", [[2], [0, 1], [1, 4, 5], range(6)])
def test_memory_holds_two_chunks_a_lane_however_many_are_read(
    make_stream: MakeStream, counted: Count, lanes: Sequence[int], policy: str
) -> None:
    """A process that reads some lanes of six holds their chunks alone, each read once a lane."""
    stream = make_stream(
        lanes=6, window=32, shuffle_buffer_shards=1, shuffle_buffer_blocks=1, window_policy=policy
    )
    asked = [number for number in range(3 * stream.count) if number % 6 in lanes]
    for number in asked:
        stream.windows([number])
        stream.text([number])
    assert counted.most <= 2 * len(lanes)
    # Besides the 13 chunks of an epoch, those in which one lane ends and the next begins.
    assert counted.made <= 3 * (13 + 2 * len(lanes))


TINY = {"valid_fraction": 0.5, "block_tokens": 100, "shard_tokens": 300}


@policies
@pytest.mark.parametrize("window", [16, 100, 1000])
def test_a_corpus_of_one_document_is_read_by_more_lanes_than_it_has_windows(
    build_another: Callable[..., Path], make_stream: MakeStream, window: int, policy: str
) -> None:
    tiny = Corpus(build_another(make_documents(4, seed=5), **TINY))
    assert tiny.train.lengths.tolist() == [106]
    stream = make_stream(corpus=tiny, window=window, window_policy=policy, lanes=16)
    assert stream.count == -(-106 // window) < 16
    for epoch in range(3):
        assert_holds_every_token_once(stream, epoch, tiny.train)
    assert {window.epoch for window in stream.windows(range(5 * stream.count))} == set(range(5))


@policies
def test_a_document_larger_than_all_settings_is_read_like_any_other(
    build_another: Callable[..., Path], make_stream: MakeStream, policy: str
) -> None:
    texts = [document["text"] for document in make_documents(30, seed=5)]
    texts += [" ".join(texts * times) for times in (2, 3, 4)]
    huge = Corpus(build_another([{"text": text} for text in texts], **TINY))
    assert huge.train.lengths.max() > 5 * 300
    stream = make_stream(
        corpus=huge,
        window=20,
        window_policy=policy,
        shuffle_buffer_shards=2,
        shuffle_buffer_blocks=2,
    )
    for epoch in range(2):
        assert_holds_every_token_once(stream, epoch, huge.train)
