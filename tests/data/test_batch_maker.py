"""From windows to batches: what keys the draws, what is counted, and held-out batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from megapt.data import (
    BatchMaker,
    Corpus,
    CounterRng,
    Counts,
    TextMaker,
    WindowStream,
    derive_key,
    validation_batches,
)
from megapt.data.batch_maker import PackedText
from megapt.data.targets import narrow
from megapt.objectives import OBJECTIVES
from tests.data.loading import assert_same, joined
from tests.objectives.builders import build

MakeStream = Callable[..., WindowStream]
MakeMaker = Callable[..., BatchMaker]


@pytest.fixture(scope="module")
def make_maker(corpus: Corpus, make_stream: MakeStream) -> MakeMaker:
    def make(name: str, seed: int = 5, split: str = "train") -> BatchMaker:
        objective = build(name, corpus.vocabulary, corpus.labels, window=64)
        return BatchMaker(make_stream(split), objective, corpus.vocabulary.pad, seed)

    return make


def test_a_batch_is_that_of_its_windows_one_after_another(make_maker: MakeMaker) -> None:
    maker = make_maker("mlm")
    last = maker.stream.count
    numbers = [last - 1, last, 3]
    tokens = [e.tokens for w in maker.stream.windows(numbers) for e in maker.examples(w)]
    assert maker.batch(numbers).widen().tokens.tolist() == np.concatenate(tokens).tolist()


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_ids_stay_as_narrow_as_the_shards_hold_them(
    make_maker: MakeMaker, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing is converted before they cross to another process, and then there is no need."""
    crossing: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def watched(values: NDArray[Any], *types: Any) -> NDArray[Any]:
        crossing.append((values, narrow(values, *types)))
        return crossing[-1][1]

    monkeypatch.setattr("megapt.data.batch.narrow", watched)
    maker = make_maker(name)
    packed = maker.batch(range(8))
    [(laid, crossed), *_] = crossing
    assert maker.stream.windows([0])[0].pieces[0].tokens.dtype == laid.dtype == np.uint16
    assert packed.tokens is crossed is laid


@pytest.mark.parametrize("part", ["epoch", "index"])
def test_the_same_text_is_masked_anew_in_every_epoch_and_window(
    make_maker: MakeMaker, part: str
) -> None:
    maker = make_maker("mlm")
    (window,) = maker.stream.windows([0])
    places = [
        tuple(
            place
            for example in maker.examples(replace(window, **{part: n}))
            for place in example.targets["tokens"].positions.tolist()
        )
        for n in range(6)
    ]
    assert len(set(places)) > 1


@pytest.mark.parametrize("split", ["train", "valid"])
def test_draws_are_keyed_by_seed_corpus_split_epoch_index_and_name(
    corpus: Corpus, make_maker: MakeMaker, split: str
) -> None:
    maker = make_maker("mlm", seed=5, split=split)
    (window,) = maker.stream.windows([maker.stream.count + 2])
    key = (5, derive_key(corpus.fingerprint), split, 1, window.index, "mlm")
    expected = maker.objective.examples(window, CounterRng(*key))
    found = maker.examples(window)
    assert [e.tokens.tolist() for e in found] == [e.tokens.tolist() for e in expected]


def test_the_seed_changes_the_masks_and_not_the_text(make_maker: MakeMaker) -> None:
    one, other = (make_maker("mlm", seed).batch(range(8)) for seed in (5, 6))
    assert one.counts.raw_tokens == other.counts.raw_tokens
    assert one.starts.tolist() == other.starts.tolist()
    assert one.tokens.tolist() != other.tokens.tolist()


def test_a_batch_counts_the_text_of_its_windows(make_maker: MakeMaker) -> None:
    maker = make_maker("arlm")
    batch = maker.batch(range(3, 7)).widen()
    windows = maker.stream.windows(range(3, 7))
    assert batch.counts.raw_tokens == sum(window.raw_tokens for window in windows) == 4 * 64
    assert batch.key == 3


@pytest.mark.parametrize("policy", ["fill", "whole"])
def test_a_batch_of_text_is_the_pieces_of_its_windows(make_stream: MakeStream, policy: str) -> None:
    stream = make_stream(window_policy=policy)
    numbers = [7, 2, 30]
    packed = TextMaker(stream).batch(numbers)
    assert isinstance(packed, PackedText)
    assert packed.tokens.dtype == np.uint16
    batch = packed.widen()
    pieces = [piece for window in stream.windows(numbers) for piece in window.pieces]
    lengths = [len(piece.tokens) for piece in pieces]
    assert batch.tokens.dtype == batch.starts.dtype == batch.positions.dtype == torch.int64
    assert batch.tokens.tolist() == [token for piece in pieces for token in piece.tokens]
    assert batch.starts.tolist() == np.cumsum([0, *lengths]).tolist()
    assert batch.positions.tolist() == [place for n in lengths for place in range(n)]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.cu_seqlens.tolist() == batch.starts.tolist()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("windows", [1, 7, 12, 10**6])
def test_held_out_windows_come_once_and_all_ranks_do_as_many_batches(
    make_maker: MakeMaker, windows: int, world: int
) -> None:
    maker = make_maker("arlm", split="valid")
    ranks = [
        list(validation_batches(maker, windows, micro_batch_size=2, rank=rank, world=world))
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    inside = [batch for step in zip(*ranks, strict=True) for batch in step]
    whole = maker.batch(range(min(windows, maker.stream.count))).widen()
    assert_same(joined(inside), joined([whole]))
    assert sum((b.counts for batches in ranks for b in batches), Counts()) == whole.counts
    if windows > maker.stream.count:
        assert whole.counts.raw_tokens == maker.stream.split.info.tokens
