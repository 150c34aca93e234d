from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from megapt.config import ConfigError
from megapt.data import CounterRng, Example, Piece, Window
from megapt.objectives.nsp import NEXT, RANDOM, cut_pieces
from tests.chance import assert_fits
from tests.objectives.building import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, sized_windows, windows

V = VOCABULARY
NSP = build("nsp")


def two_sentences(document: int) -> Piece:
    """A piece whose tokens name the document and the sentence."""
    tokens = [40 + 10 * document] * 2 + [41 + 10 * document] * 3
    return make_piece(tokens, sentences=(0, 2), document=document)


def window_of(documents: int) -> Window:
    return Window(0, 0, tuple(two_sentences(document) for document in range(documents)))


def split(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A and B of [CLS] A [SEP] B [SEP]."""
    [first, second] = np.flatnonzero(example.tokens == V.sep)
    assert example.tokens[0] == V.cls
    assert second == len(example) - 1
    return tuple(example.tokens[1:first].tolist()), tuple(example.tokens[first + 1 : -1].tolist())


def label_of(example: Example) -> int:
    target = example.targets["nsp"]
    assert target.positions.tolist() == [0]
    return int(target.labels[0])


def pieces_by_document(window: Window) -> dict[int, Piece]:
    return {piece.document: piece for piece in window.pieces}


@given(windows, keys)
def test_pieces_are_cut_at_sentence_starts(window: Window, key: int) -> None:
    true, _ = cut_pieces(window, CounterRng(key))
    for pair in true:
        piece, cut = pieces_by_document(window)[pair.document], len(pair.a.tokens)
        assert cut > 0
        assert piece.sentence_starts[cut]
        assert (np.concatenate([pair.a.tokens, pair.b.tokens]) == piece.tokens).all()
        words = np.concatenate([pair.a.word_starts, pair.b.word_starts])
        assert (words == piece.word_starts).all()
        assert pair.label == NEXT


@given(windows, keys)
def test_every_piece_forms_a_pair_or_stays_alone(window: Window, key: int) -> None:
    true, alone = cut_pieces(window, CounterRng(key))
    left = [window.pieces[number].document for number in alone]
    found = sorted([*(pair.document for pair in true), *left])
    assert found == sorted(piece.document for piece in window.pieces)
    assert alone == sorted(alone)
    assert len(true) != 1


def test_every_sentence_start_is_equally_likely_to_be_the_cut() -> None:
    long = make_piece([50] * 12, sentences=(0, 2, 3, 7, 11))
    window = Window(0, 0, (long, two_sentences(1)))
    counts = Counter(len(cut_pieces(window, CounterRng(k))[0][0].a.tokens) for k in range(4000))
    assert set(counts) == {2, 3, 7, 11}
    assert_fits(list(counts.values()), np.ones(4))


@given(windows, keys)
def test_every_a_and_every_b_comes_once_under_each_label(window: Window, key: int) -> None:
    true, _ = cut_pieces(window, CounterRng(key))
    firsts = Counter(tuple(pair.a.tokens.tolist()) for pair in true)
    seconds = Counter(tuple(pair.b.tokens.tolist()) for pair in true)
    examples = examples_of(NSP, window, key)
    for label in (NEXT, RANDOM):
        asked = [split(example) for example in examples if label_of(example) == label]
        assert Counter(a for a, _ in asked) == firsts
        assert Counter(b for _, b in asked) == seconds


@given(windows, keys)
def test_a_right_b_follows_and_a_wrong_b_is_of_another_document(window: Window, key: int) -> None:
    texts = {d: p.tokens.tolist() for d, p in pieces_by_document(window).items()}
    for example in examples_of(NSP, window, key):
        a, b = split(example)
        own = texts[example.document]
        if label_of(example) == NEXT:
            assert [*a, *b] == own
        else:
            others = [text for document, text in texts.items() if document != example.document]
            assert any(text[-len(b) :] == list(b) for text in others)


def test_every_other_document_is_equally_likely_to_give_the_wrong_b() -> None:
    counts = np.zeros((4, 4))
    for key in range(3000):
        for example in examples_of(NSP, window_of(4), key):
            if label_of(example) == RANDOM:
                counts[example.document, (split(example)[1][0] - 41) // 10] += 1
    assert not counts.diagonal().any()
    for document in range(4):
        assert_fits(np.delete(counts[document], document), np.ones(3))


@pytest.mark.parametrize("documents", [0, 1])
def test_a_lone_piece_forms_no_pair(documents: int) -> None:
    window = window_of(documents)
    assert cut_pieces(window, CounterRng(0)) == ([], list(range(documents)))
    assert examples_of(NSP, window, 0) == []


def test_pieces_of_one_sentence_form_no_pair() -> None:
    single = make_piece([50, 51], document=9)
    window = Window(0, 0, (single, *window_of(2).pieces, single))
    true, alone = cut_pieces(window, CounterRng(0))
    assert alone == [0, 3]
    assert [pair.document for pair in true] == [0, 1]


def test_one_pairable_piece_among_single_sentences_stays_alone() -> None:
    single = make_piece([50, 51], document=9)
    window = Window(0, 0, (*window_of(1).pieces, single))
    assert cut_pieces(window, CounterRng(0)) == ([], [0, 1])


def test_golden_layout() -> None:
    examples = examples_of(NSP, window_of(2), 0)
    assert [(e.document, split(e), label_of(e)) for e in examples] == [
        (0, ((40, 40), (41, 41, 41)), NEXT),
        (0, ((40, 40), (51, 51, 51)), RANDOM),
        (1, ((50, 50), (51, 51, 51)), NEXT),
        (1, ((50, 50), (41, 41, 41)), RANDOM),
    ]
    for example in examples:
        assert example.segments.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert example.positions.tolist() == list(range(8))
        assert example.visible.all()


@given(sized_windows(), keys)
def test_a_wrong_pair_of_more_than_w_tokens_loses_the_end_of_b(
    drawn: tuple[int, Window], key: int
) -> None:
    size, window = drawn
    cut, uncut = (examples_of(build("nsp", window=w), window, key) for w in (size, 2 * size))
    for example, whole in zip(cut, uncut, strict=True):
        (a, b), (same, long) = split(example), split(whole)
        assert a == same
        assert b == long[: size - len(a)] != ()
        assert label_of(example) == label_of(whole) == RANDOM or b == long


def test_a_pair_of_w_tokens_is_whole_and_one_more_is_cut() -> None:
    first = make_piece([40] * 6 + [41] * 2, sentences=(0, 6))
    second = make_piece([50] * 2 + [51] * 4, sentences=(0, 2), document=1)
    window = Window(0, 0, (first, second))
    for size, left in ((10, 4), (9, 3), (8, 2)):
        wrong = examples_of(build("nsp", window=size), window, 0)[1]
        assert split(wrong) == ((40,) * 6, (51,) * left)


@pytest.mark.parametrize(("reading", "kind"), [("pair", "pair"), ("cls", "sequence")])
def test_one_head_of_two_named_classes(reading: str, kind: str) -> None:
    [head] = build("nsp", reading=reading).heads
    assert (head.name, head.kind, head.classes, head.weight) == ("nsp", kind, 2, 1.0)
    assert head.labels[NEXT] == "next"
    assert head.labels[RANDOM] == "random"


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.reading"):
        build("nsp", reading="mean")
