"""Windows in parts: the same text in the same order, only shorter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import (
    BatchMaker,
    Corpus,
    CounterRng,
    Example,
    HeadSpec,
    LengthSchedule,
    Loader,
    Piece,
    Window,
    WindowStream,
    make_example,
    validation_batches,
)
from megapt.data.window_lengths import split_window
from megapt.objectives import OBJECTIVES
from tests.data.loading import assert_same, joined
from tests.objectives.builders import build

MakeStream = Callable[..., WindowStream]
MakeMaker = Callable[..., BatchMaker]
WINDOW, LENGTH, BATCH = 64, 32, 4


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Windows of pieces as the streams make them; each token is another one."""
    sizes = draw(st.lists(st.integers(1, 60), max_size=6))
    pieces = []
    for number, size in enumerate(sizes):
        words = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        words[0] = True
        sentences = words & (np.arange(size) % 3 == 0)
        first = sum(sizes[:number])
        pieces.append(
            Piece(
                np.arange(first, first + size, dtype=np.uint16),
                words,
                sentences,
                number,
                number % 3 - 1,
                number > 0 or draw(st.booleans()),
                number < len(sizes) - 1 or draw(st.booleans()),
            )
        )
    return Window(3, 14, tuple(pieces), corpus=1, step=5)


@given(windows(), st.integers(1, 40))
def test_parts_hold_the_text_of_the_window_in_its_order(window: Window, length: int) -> None:
    parts = split_window(window, length)
    *others, last = [part.raw_tokens for part in parts]
    assert others == [length] * len(others)
    assert last <= length
    assert last > 0 or not window.pieces
    for part in parts:
        assert (part.epoch, part.index, part.corpus, part.step) == (3, 14, 1, 5)
    found = [piece for part in parts for piece in part.pieces]
    for piece in window.pieces:
        mine = [part for part in found if part.document == piece.document]
        assert np.concatenate([part.tokens for part in mine]).tolist() == piece.tokens.tolist()
        for marks in ("word_starts", "sentence_starts"):
            expected = getattr(piece, marks).copy()
            expected[np.cumsum([0, *(len(part.tokens) for part in mine[:-1])])] = True
            assert np.concatenate([getattr(p, marks) for p in mine]).tolist() == expected.tolist()
        ends = [(part.starts_document, part.ends_document) for part in mine]
        assert [start for start, _ in ends] == [piece.starts_document] + [False] * (len(mine) - 1)
        assert [end for _, end in ends] == [False] * (len(mine) - 1) + [piece.ends_document]
        assert {part.label for part in mine} == {piece.label}


@given(windows())
def test_the_marks_of_the_window_are_left_alone(window: Window) -> None:
    before = [(p.word_starts.copy(), p.sentence_starts.copy()) for p in window.pieces]
    split_window(window, 7)
    for piece, (words, sentences) in zip(window.pieces, before, strict=True):
        assert piece.word_starts.tolist() == words.tolist()
        assert piece.sentence_starts.tolist() == sentences.tolist()


def test_the_length_goes_by_the_step() -> None:
    lengths = LengthSchedule([(2, 16), (3, 32)])
    assert [lengths.length(step) for step in range(7)] == [16, 16, 32, 32, 32, None, None]
    assert lengths.length(None) is None, "held-out windows are whole"
    assert LengthSchedule().length(0) is None


@given(
    *[st.lists(st.tuples(st.integers(1, 4), st.sampled_from([16, 32])), max_size=3)] * 2,
    st.integers(0, 12),
)
def test_schedules_agree_where_each_step_has_the_same_length(
    one: list[tuple[int, int]], other: list[tuple[int, int]], steps: int
) -> None:
    mine, theirs = LengthSchedule(one), LengthSchedule(other)
    same = all(mine.length(step) == theirs.length(step) for step in range(steps))
    assert mine.agrees(theirs, steps) == same


@pytest.fixture(scope="module")
def make_maker(corpus: Corpus, make_stream: MakeStream) -> MakeMaker:
    def make(name: str, *stages: tuple[int, int], split: str = "train", **data: Any) -> BatchMaker:
        objective = build(name, corpus.vocabulary, corpus.labels, window=WINDOW)
        stream = make_stream(split, window=WINDOW, **data)
        batch = None if split == "valid" else BATCH
        return BatchMaker(
            stream,
            objective,
            corpus.vocabulary.pad,
            5,
            global_batch_size=batch,
            lengths=LengthSchedule(stages),
        )

    return make


class Copied:
    """An objective whose examples are the pieces."""

    name = "copied"
    heads: tuple[HeadSpec, ...] = ()

    def longest_example(self, window: int) -> int:
        return window

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        return [make_example(piece.tokens, "causal", {}) for piece in window.pieces]


@pytest.mark.parametrize("policy", ["fill", "whole"])
def test_a_step_reads_the_same_text_in_shorter_examples(make_maker: MakeMaker, policy: str) -> None:
    short, whole = (
        make_maker("arlm", *stages, window_policy=policy).with_objective(Copied())
        for stages in ([(2, LENGTH)], [])
    )
    for step in range(4):
        mine, theirs = (
            maker.batch(range(step * BATCH, (step + 1) * BATCH)) for maker in (short, whole)
        )
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        assert mine.counts.raw_tokens == theirs.counts.raw_tokens == len(mine.tokens)
        longest = [int(np.diff(batch.starts).max()) for batch in (mine, theirs)]
        assert longest[0] <= LENGTH < longest[1] or step >= 2
        assert mine.starts.tolist() == theirs.starts.tolist() or step < 2


def test_parts_draw_apart(corpus: Corpus, make_maker: MakeMaker) -> None:
    maker = make_maker("mlm", (1, LENGTH))
    # A window whose parts have the same text.
    marks = np.arange(LENGTH) == 0
    tokens = corpus.vocabulary.ordinary[:LENGTH]
    piece = Piece(tokens, marks, marks, 0, -1, True, True)
    window = Window(0, 0, (piece,) * 3, step=0)
    masked = [tuple(e.targets["tokens"].positions.tolist()) for e in maker.examples(window)]
    assert len(masked) == 3
    assert len(set(masked)) > 1
    again = [tuple(e.targets["tokens"].positions.tolist()) for e in maker.examples(window)]
    assert again == masked


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_takes_parts_as_windows(make_maker: MakeMaker, name: str) -> None:
    short, whole = make_maker(name, (2, LENGTH)), make_maker(name)
    longest = short.objective.longest_example(WINDOW)
    examples = [e for w in short.windows(range(2 * BATCH)) for e in short.examples(w)]
    assert max(map(len, examples)) <= longest
    assert any(target.labels.size for e in examples for target in e.targets.values())
    after = range(2 * BATCH, 3 * BATCH)
    assert_same(joined([short.batch(after).widen()]), joined([whole.batch(after).widen()]))
    assert short.batch(after).counts == whole.batch(after).counts


def test_a_mixture_draws_a_member_for_each_part(
    corpus: Corpus, make_stream: MakeStream, make_maker: MakeMaker
) -> None:
    members = {"arlm": {"name": "arlm"}, "mlm": {"name": "mlm"}}
    objective = build("mixture", corpus.vocabulary, members=members, window=WINDOW)
    maker = BatchMaker(
        make_stream(window=WINDOW),
        objective,
        corpus.vocabulary.pad,
        5,
        global_batch_size=BATCH,
        lengths=LengthSchedule([(8, LENGTH)]),
    )
    batch = maker.batch(range(8 * BATCH))
    asked = [batch.targets[f"{name}/tokens"].windows for name in members]
    assert min(asked) > 0
    assert sum(asked) == 8 * BATCH * WINDOW // LENGTH, "each part counts as a window does"


def test_held_out_windows_stay_whole(make_maker: MakeMaker) -> None:
    short, whole = (make_maker("mlm", *s, split="valid") for s in ([(99, LENGTH)], []))
    batches = [list(validation_batches(maker, 6, micro_batch_size=3)) for maker in (short, whole)]
    for one, other in zip(*batches, strict=True):
        assert_same(joined([one]), joined([other]))


def test_loader_processes_cut_the_same_parts(make_maker: MakeMaker) -> None:
    found = []
    for workers in (0, 1):
        loader: Loader[Any] = Loader(make_maker("mlm", (2, LENGTH)), global_batch_size=BATCH)
        with closing(loader.iterate(workers)) as iterator:
            found.append([batches for _, batches in islice(iterator, 3)])
    for one, other in zip(*found, strict=True):
        assert_same(joined(one), joined(other))
