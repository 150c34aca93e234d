"""BERT's pairs, held against a plain transcription of its rule that makes the same draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Piece, Window
from megapt.objectives.pairs import RIGHT, WRONG, Task
from megapt.objectives.reference_pairs import bert_pairs, truncated_sizes
from tests.chance import assert_fits, assert_mean
from tests.windows import keys, make_piece, sized_windows, windows

Sentence = list[int]
tasks = st.sampled_from(["nsp", "sop"])


def sentences_of(piece: Piece) -> list[Sentence]:
    starts = np.flatnonzero(piece.sentence_starts)
    return [part.tolist() for part in np.split(piece.tokens, starts[1:])]


def trim(a: Sentence, b: Sentence, longest: int, rng: CounterRng) -> tuple[Sentence, Sentence]:
    """Take one token after another from the longer side; the coins of A are drawn before B's."""
    sizes = [len(a), len(b)]
    while sum(sizes) > longest:
        sizes[0 if sizes[0] > sizes[1] else 1] -= 1
    for side, size in ((a, sizes[0]), (b, sizes[1])):
        for coin in (rng.bits(len(side) - size) >> 63).tolist():
            side.pop(0 if coin else -1)
    return a, b


def transcribed(
    documents: Sequence[list[Sentence]], task: Task, longest: int, rng: CounterRng
) -> list[tuple[Sentence, Sentence, int]]:
    """The published loops, sentence by sentence."""
    found = []
    for own, document in enumerate(documents):
        target = longest
        if rng.chance(0.1):
            target = rng.integer(2, longest + 1)
        waiting, chunk = list(document), []
        while waiting:
            chunk.append(waiting.pop(0))
            if waiting and sum(map(len, chunk)) < target:
                continue
            a_end = rng.integer(1, len(chunk)) if len(chunk) >= 2 else 1
            a = [token for sentence in chunk[:a_end] for token in sentence]
            b = [token for sentence in chunk[a_end:] for token in sentence]
            label = RIGHT
            if len(chunk) == 1 or rng.chance(0.5):
                label = WRONG
                if task == "sop" and len(chunk) > 1:
                    a, b = b, a
                else:
                    waiting = chunk[a_end:] + waiting
                    other, tries = own, 0
                    while other == own and tries < 10:
                        other, tries = rng.integer(0, len(documents)), tries + 1
                    b = []
                    for sentence in documents[other][rng.integer(0, len(documents[other])) :]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
            found.append((*trim(a, b, longest, rng), label))
            chunk = []
    return found


@given(sized_windows(), keys, tasks)
def test_pairs_are_those_of_the_published_loops(
    drawn: tuple[int, Window], key: int, task: Task
) -> None:
    size, window = drawn
    found = [
        (pair.a.tokens.tolist(), pair.b.tokens.tolist(), pair.label)
        for pair in bert_pairs(window.pieces, task, size, CounterRng(key))
    ]
    documents = [sentences_of(piece) for piece in window.pieces]
    assert found == transcribed(documents, task, size, CounterRng(key))


@given(sized_windows(), keys, tasks)
def test_no_side_is_empty_and_both_fit_and_begin_with_a_word(
    drawn: tuple[int, Window], key: int, task: Task
) -> None:
    size, window = drawn
    for pair in bert_pairs(window.pieces, task, size, CounterRng(key)):
        for part in (pair.a, pair.b):
            assert len(part.tokens) == len(part.word_starts) >= 1
            assert part.word_starts[0]
        assert len(pair.a.tokens) + len(pair.b.tokens) <= size


@given(windows, keys, tasks)
def test_right_pairs_never_join_two_documents(window: Window, key: int, task: Task) -> None:
    text = {piece.document: piece.tokens.tolist() for piece in window.pieces}
    for pair in bert_pairs(window.pieces, task, 1000, CounterRng(key)):
        if pair.label == RIGHT:
            joined, own = pair.joined().tokens.tolist(), text[pair.a.document]
            assert pair.a.document == pair.b.document
            assert any(own[at : at + len(joined)] == joined for at in range(len(own)))


def labels(window: Window, longest: int, keys: int, task: Task = "nsp") -> list[list[int]]:
    return [
        [pair.label for pair in bert_pairs(window.pieces, task, longest, CounterRng(key))]
        for key in range(keys)
    ]


def window_of(sentences: int) -> Window:
    """Four documents of sentences of four tokens, which tell the document and the place."""
    tokens, starts = 4 * sentences, range(0, 4 * sentences, 4)
    pieces = [
        make_piece(range(40 + 20 * d, 40 + 20 * d + tokens), sentences=starts, document=d)
        for d in range(4)
    ]
    return Window(0, 0, tuple(pieces))


def test_a_single_sentence_always_has_a_random_partner() -> None:
    for task in ("nsp", "sop"):
        assert {label for row in labels(window_of(1), 100, 50, task) for label in row} == {WRONG}


def test_more_than_half_of_the_pairs_are_random() -> None:
    """A document that is gathered whole gives one random pair on average, and fewer right ones.

    A coin ends a document of two sentences rightly; the other side leaves a single sentence, which
    is random again. With k(s) pairs of s sentences: k(1) = 1, k(2) = 1 + k(1) / 2 = 1.5 and
    k(3) = 1 + (k(1) + k(2)) / 4 = 1.625, of which one is random. Short targets are kept out by
    chance alone: sentences of four tokens and W = 1000 meet a target below 12 with 0.1%.
    """
    for sentences, pairs in ((2, 1.5), (3, 1.625)):
        rows = labels(window_of(sentences), 1000, 2500)
        assert_mean(np.array([len(row) for row in rows]), 4 * pairs, sigmas=5)
        assert_mean(np.array([sum(row) for row in rows]), 4.0, sigmas=5)


def test_albert_swaps_half_of_what_is_longer_than_a_sentence() -> None:
    rows = np.array([label for row in labels(window_of(5), 100_000, 1500, "sop") for label in row])
    assert len(rows) == 6000
    assert_mean(rows, 0.5)


def test_in_a_window_of_one_document_a_random_b_is_of_that_document() -> None:
    piece = make_piece(range(50, 62), sentences=(0, 4, 8))
    drawn = [
        pair
        for key in range(200)
        for pair in bert_pairs([piece], "nsp", 100, CounterRng(key))
        if pair.label == WRONG
    ]
    assert {pair.b.document for pair in drawn} == {0}
    assert {int(pair.b.tokens[0]) for pair in drawn} == {50, 54, 58}


def test_the_other_document_and_its_first_sentence_are_uniform() -> None:
    counts = np.zeros((4, 3))
    for key in range(2500):
        for pair in bert_pairs(window_of(3).pieces, "nsp", 1000, CounterRng(key)):
            if pair.label == WRONG and pair.a.document == 0:
                counts[pair.b.document, (int(pair.b.tokens[0]) - 40) % 20 // 4] += 1
    assert counts[0].sum() <= 2, "ten draws in a row of four documents hardly ever meet the same"
    assert_fits(counts[1:].ravel(), np.ones(9))


@given(st.integers(1, 80), st.integers(1, 80), st.integers(2, 60))
def test_the_longer_side_loses_tokens_until_both_fit(a: int, b: int, longest: int) -> None:
    sides = [a, b]
    while sum(sides) > longest:
        sides[0 if sides[0] > sides[1] else 1] -= 1
    assert truncated_sizes(a, b, longest) == tuple(sides)


def test_a_coin_each_decides_which_end_loses_a_token() -> None:
    piece = make_piece([*range(50, 58), 70, 71, 72], words=(0, 8), sentences=(0, 8))
    counts = np.zeros(3)
    for key in range(3000):
        for pair in bert_pairs([piece], "nsp", 9, CounterRng(key)):
            if pair.label == RIGHT:
                assert (len(pair.a.tokens), pair.b.tokens.tolist()) == (6, [70, 71, 72])
                assert pair.a.word_starts.tolist() == [True] + [False] * 5
                counts[int(pair.a.tokens[0]) - 50] += 1
    # Of two tokens too many 0, 1 or 2 are lost at the front.
    assert_fits(counts, [1, 2, 1])
