"""Chunks: where documents are cut into windows, and the text of some blocks, permuted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.shards import open_shards
from megapt.data import Corpus, Piece, Split
from megapt.data.chunks import Chunk, Policy, cut_documents, cut_window
from megapt.data.order import ChunkPlan
from tests.windows import cuts

POLICIES: tuple[Policy, ...] = ("fill", "whole")
policies = pytest.mark.parametrize("policy", POLICIES)

sizes = st.integers(1, 20)
lengths = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 70)), min_size=1, max_size=30)


@given(lengths, sizes)
def test_documents_are_cut_into_pieces_of_one_size_and_a_rest(
    lengths: list[int], longest: int
) -> None:
    pieces = cut_documents(np.array(lengths), longest)
    assert pieces.starts == [0, *pieces.stops[:-1]]
    found: list[list[int]] = [[] for _ in lengths]
    for document, start, stop in zip(*pieces, strict=True):
        found[document].append(stop - start)
    for of_document, length in zip(found, lengths, strict=True):
        rest = length % longest
        assert of_document == [longest] * (length // longest) + [rest] * bool(rest)
    assert pieces.documents == sorted(pieces.documents)


def cut_chunk(
    lengths: list[int], first: int, total: int, size: int, policy: Policy
) -> dict[int, list[tuple[int, int, int]]]:
    """Pieces (document, start, stop) of each window of a stream of `total` tokens in a chunk.

    The chunk holds documents of these lengths and begins at token `first` of the stream.
    """
    pieces = cut_documents(np.array(lengths), size if policy == "whole" else max(lengths))
    found = {}
    for window in range(-(-total // size)):
        start = window * size - first
        place, bounds = cut_window(pieces, start, start + size, policy)
        documents = pieces.documents[place : place + max(0, len(bounds) - 1)]
        found[window] = [
            (document, a, b) for document, (a, b) in zip(documents, pairwise(bounds), strict=True)
        ]
    return found


@policies
@given(lengths, st.integers(0, 90), st.integers(0, 90), sizes)
def test_every_token_of_a_chunk_lies_in_one_window(
    policy: Policy, lengths: list[int], before: int, after: int, size: int
) -> None:
    total = before + sum(lengths) + after
    found = cut_chunk(lengths, before, total, size, policy)
    assert [t for cut in found.values() for _, a, b in cut for t in range(a, b)] == list(
        range(sum(lengths))
    )
    owners = np.repeat(np.arange(len(lengths)), lengths)
    for window, cut in found.items():
        for document, start, stop in cut:
            assert start < stop
            assert set(owners[start:stop].tolist()) == {document}
            begin = before + start - window * size
            assert 0 <= begin < size
            assert policy == "whole" or begin + stop - start <= size


@policies
@given(lengths, sizes, st.lists(st.integers(1, 29), max_size=4))
def test_chunks_side_by_side_make_the_windows_of_the_whole_text(
    policy: Policy, lengths: list[int], size: int, borders: list[int]
) -> None:
    """However the documents are divided into chunks, `fill` cuts every W and `whole` none of W."""
    ends = np.cumsum([0, *lengths])
    total = int(ends[-1])
    windows: list[list[tuple[int, int, int]]] = [[] for _ in range(-(-total // size))]
    edges = sorted({0, len(lengths), *(border for border in borders if border < len(lengths))})
    for first, last in pairwise(edges):
        start = int(ends[first])
        for window, cut in cut_chunk(lengths[first:last], start, total, size, policy).items():
            windows[window] += [
                (
                    first + document,
                    start + a - int(ends[first + document]),
                    start + b - int(ends[first + document]),
                )
                for document, a, b in cut
            ]
    assert windows == cuts(lengths, size, policy)
    tokens = [sum(stop - start for _, start, stop in cut) for cut in windows]
    if policy == "fill":
        assert tokens == [min(size, total - size * window) for window in range(len(windows))]
        return
    assert max(tokens) < 2 * size
    assert all(tokens[:-1])
    for cut in windows:
        for document, start, stop in cut:
            assert stop - start <= size
            assert lengths[document] > size or stop - start == lengths[document]


class Document(NamedTuple):
    tokens: list[int]
    words: list[bool]
    sentences: list[bool]
    label: int


def read_documents(corpus: Corpus, split: Split, plan: ChunkPlan) -> dict[int, Document]:
    """Number in the corpus -> document, of the blocks of a chunk as their shards hold them."""
    shards = open_shards(corpus.location.path(split.info.index).parent, split.info)
    found = {}
    for number, place in plan.blocks.tolist():
        block = shards[number].block(place)
        ends = np.cumsum(block.lens)
        for i, (start, end) in enumerate(zip(ends - block.lens, ends, strict=True)):
            found[int(block.documents[i])] = Document(
                block.tokens[start:end].tolist(),
                block.words[start:end].tolist(),
                block.sentences[start:end].tolist(),
                int(block.labels[i]),
            )
    return found


BLOCKS = [(1, 2), (0, 0), (3, 1), (1, 0)]
KEY = (7, "fingerprint", "train")


def make_plan(split: Split, blocks: list[tuple[int, int]] = BLOCKS, start: int = 1000) -> ChunkPlan:
    tokens = sum(int(split.block_tokens(shard)[block]) for shard, block in blocks)
    return ChunkPlan(2, 1, 3, np.array(blocks), start, start + tokens)


def make_chunk(split: Split, policy: Policy = "fill", window: int = 50, **changes: int) -> Chunk:
    return Chunk(split, make_plan(split, **changes), KEY, window=window, policy=policy)


def windows_of(chunk: Chunk, window: int = 50) -> Iterator[tuple[int, int]]:
    first, stop = chunk.plan.start // window, -(-chunk.plan.stop // window)
    return ((number * window, (number + 1) * window) for number in range(first, stop))


def pieces_of(chunk: Chunk) -> list[Piece]:
    return [piece for start, stop in windows_of(chunk) for piece in chunk.pieces(start, stop)]


@policies
@pytest.mark.parametrize("start", [0, 50, 1021])
def test_the_text_of_a_chunk_is_the_documents_of_its_blocks(
    corpus: Corpus, policy: Policy, start: int
) -> None:
    split = corpus.train
    expected = read_documents(corpus, split, make_plan(split))
    chunk = make_chunk(split, policy, start=start)
    found: dict[int, list[Piece]] = {}
    for piece in pieces_of(chunk):
        found.setdefault(piece.document, []).append(piece)
    assert found.keys() == expected.keys()
    for number, pieces in found.items():
        document = expected[number]
        assert np.concatenate([piece.tokens for piece in pieces]).tolist() == document.tokens
        assert {piece.label for piece in pieces} == {document.label}
        assert [piece.starts_document for piece in pieces] == [True] + [False] * (len(pieces) - 1)
        assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        at = 0
        for piece in pieces:
            stop = at + len(piece.tokens)
            # The first token of a piece begins a word and a sentence of that piece.
            assert piece.word_starts.tolist() == [True, *document.words[at + 1 : stop]]
            assert piece.sentence_starts.tolist() == [True, *document.sentences[at + 1 : stop]]
            at = stop
    assert any(len(pieces) > 1 for pieces in found.values()), "no document was cut"


@policies
def test_plain_text_is_that_of_the_pieces(corpus: Corpus, policy: Policy) -> None:
    chunk = make_chunk(corpus.train, policy)
    for start, stop in windows_of(chunk):
        parts, lengths = chunk.text(start, stop)
        pieces = chunk.pieces(start, stop)
        assert lengths == [len(piece.tokens) for piece in pieces]
        assert np.concatenate(parts).tolist() == [t for piece in pieces for t in piece.tokens]
        assert {part.dtype for part in parts} == {np.dtype(np.uint16)}


def test_reading_plain_text_reads_nothing_else(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = make_chunk(corpus.train)
    for shard, _ in BLOCKS:
        monkeypatch.setattr(corpus.train.shard(shard), "marks", None)
    assert chunk.text(1000, 1050)[1]


def test_marks_of_a_cut_piece_leave_the_next_reading_as_it_was(corpus: Corpus) -> None:
    chunk = make_chunk(corpus.train, window=7)
    cut = make_chunk(corpus.train, window=7).pieces(1050, 1057)
    for start in range(1045, 1057):  # every token once the first of a piece
        chunk.pieces(start, start + 7)
    again = chunk.pieces(1050, 1057)
    assert [p.word_starts.tolist() for p in again] == [p.word_starts.tolist() for p in cut]
    assert [p.sentence_starts.tolist() for p in again] == [p.sentence_starts.tolist() for p in cut]


def test_documents_of_all_blocks_are_mixed(corpus: Corpus) -> None:
    """Neighbors in a block must not stand beside each other in the chunk."""
    numbers = list(dict.fromkeys(piece.document for piece in pieces_of(make_chunk(corpus.train))))
    beside = sum(abs(after - before) == 1 for before, after in pairwise(numbers))
    assert beside < 0.1 * len(numbers)


@pytest.mark.parametrize("place", [(3, 1, 3), (2, 2, 3), (2, 1, 4)])
def test_epoch_span_and_chunk_key_the_order_of_documents(
    corpus: Corpus, place: tuple[int, int, int]
) -> None:
    usual = make_plan(corpus.train)
    other = ChunkPlan(*place, usual.blocks, usual.start, usual.stop)
    chunks = [Chunk(corpus.train, plan, KEY, window=50, policy="fill") for plan in (usual, other)]
    texts = [chunk.tokens.tolist() for chunk in chunks]
    assert texts[0] != texts[1]
    assert sorted(texts[0]) == sorted(texts[1])


@pytest.fixture
def open_again(corpus: Corpus) -> Split:
    """The split once more, so that a test may leave out some of its shards."""
    return Corpus(corpus.where).train


@policies
@pytest.mark.parametrize("gone", [{1}, {0, 3}, {0, 1, 3}])
def test_a_shard_that_is_left_out_leaves_gaps_and_moves_nothing(
    corpus: Corpus, open_again: Split, policy: Policy, gone: set[int]
) -> None:
    open_again.store.skip(dict.fromkeys(gone, "damaged"))
    whole, holed = make_chunk(corpus.train, policy), make_chunk(open_again, policy)
    blocks = [block for block in BLOCKS if block[0] not in gone]
    kept = set(
        read_documents(corpus, corpus.train, make_plan(corpus.train, blocks)) if blocks else ()
    )
    for start, stop in windows_of(whole):
        expected = [piece for piece in whole.pieces(start, stop) if piece.document in kept]
        found = holed.pieces(start, stop)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            for name, value in vars(other).items():
                assert np.array_equal(getattr(one, name), value), name
        parts, lengths = holed.text(start, stop)
        assert lengths == [len(piece.tokens) for piece in expected]
        assert [t for part in parts for t in part] == [t for p in expected for t in p.tokens]


def test_classes_are_numbered_as_the_split_says(corpus: Corpus, open_again: Split) -> None:
    open_again.classes = np.array([5, 3, -1])
    labels = [piece.label for piece in pieces_of(make_chunk(corpus.train))]
    renamed = [piece.label for piece in pieces_of(make_chunk(open_again))]
    assert renamed == [{0: 5, 1: 3, -1: -1}[label] for label in labels]
    assert {0, 1} <= set(labels)
