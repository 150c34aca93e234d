from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Example, Window
from megapt.errors import ConfigError
from megapt.objectives import Context, ObjectiveError
from megapt.objectives.bert import Bert, BertConfig, exchange, swap_half
from megapt.objectives.pairs import RIGHT, WRONG, Pair, Part, Task, cut_pieces
from megapt.objectives.reference_pairs import bert_pairs
from tests.chance import assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import (
    VOCABULARY,
    keys,
    make_piece,
    random_piece,
    sized_windows,
    windows,
)

V = VOCABULARY
BERT = build("bert")


def two_sentence_documents(count: int) -> Window:
    pieces = [make_piece([40, 41, 42, 43], sentences=(0, 2), document=d) for d in range(count)]
    return Window(0, 0, tuple(pieces))


def same_part(one: Part, other: Part) -> bool:
    tokens, words = one.tokens.tolist(), one.word_starts.tolist()
    return tokens == other.tokens.tolist() and words == other.word_starts.tolist()


def is_pair(example: Example) -> bool:
    return "nsp" in example.targets


def restored(example: Example) -> np.ndarray:
    tokens = example.tokens.copy()
    tokens[example.targets["tokens"].positions] = example.targets["tokens"].labels
    return tokens


def text_of(example: Example) -> list[int]:
    tokens = restored(example)
    return tokens[tokens >= V.ordinary[0]].tolist()


@given(windows, keys, st.sampled_from(["token", "word", "span"]))
def test_labels_put_back_give_a_and_b_between_their_separators(
    window: Window, key: int, unit: str
) -> None:
    for example in examples_of(build("bert", unit=unit), window, key):
        tokens = restored(example)
        separators = np.flatnonzero(tokens == V.sep)
        assert np.flatnonzero(tokens == V.cls).tolist() == [0]
        assert len(separators) == 1 + is_pair(example)
        assert separators[-1] == len(example) - 1
        assert (np.delete(tokens, [0, *separators]) >= V.ordinary[0]).all()


@given(windows, keys)
def test_targets_stand_on_text_also_after_the_separator(window: Window, key: int) -> None:
    for example in examples_of(BERT, window, key):
        places = example.targets["tokens"].positions
        assert len(places) > 0
        assert not set(example.tokens[places].tolist()) & {V.cls, V.sep}
        free = np.setdiff1d(np.arange(len(example)), places)
        assert V.mask not in example.tokens[free]


def test_targets_after_the_separator_are_shifted_by_two() -> None:
    texts = [list(range(40, 60)), list(range(60, 80))]
    pieces = [
        make_piece(text, sentences=(0, 10), document=number) for number, text in enumerate(texts)
    ]
    seen = set()
    for key in range(20):
        for example in examples_of(build("bert", mask_rate=0.5), Window(0, 0, tuple(pieces)), key):
            target = example.targets["tokens"]
            a = texts[example.document][:10]
            follows = example.targets["nsp"].labels[0] == RIGHT
            b = texts[example.document if follows else 1 - example.document][10:]
            layout = [V.cls, *a, V.sep, *b, V.sep]
            assert [layout[place] for place in target.positions] == target.labels.tolist()
            assert restored(example).tolist() == layout
            seen |= set(target.positions.tolist())
    assert seen == set(range(1, 11)) | set(range(12, 22))


@given(windows, keys)
def test_pairs_and_lone_pieces_hold_the_text_of_the_window(window: Window, key: int) -> None:
    found = sorted(token for e in examples_of(BERT, window, key) for token in text_of(e))
    assert found == sorted(token for piece in window.pieces for token in piece.tokens.tolist())


def pairs_of(window: Window, key: int) -> list[Pair]:
    rng = CounterRng(key)
    return exchange(cut_pieces(window.pieces, "nsp", rng)[0], 1000, rng)


@given(windows, keys)
def test_every_first_and_every_second_half_is_used_once(window: Window, key: int) -> None:
    true, _ = cut_pieces(window.pieces, "nsp", CounterRng(key))
    pairs = pairs_of(window, key)
    assert [pair.a.tokens.tolist() for pair in pairs] == [p.a.tokens.tolist() for p in true]
    assert sorted(p.b.tokens.tolist() for p in pairs) == sorted(p.b.tokens.tolist() for p in true)
    assert [pair.a.document for pair in pairs] == [pair.a.document for pair in true]


@given(windows, keys)
def test_the_label_says_whether_b_follows(window: Window, key: int) -> None:
    true, _ = cut_pieces(window.pieces, "nsp", CounterRng(key))
    for pair, own in zip(pairs_of(window, key), true, strict=True):
        assert (pair.label == RIGHT) == (pair.b is own.b or same_part(pair.b, own.b))
        if pair.label == WRONG:
            others = [other for other in true if other.a.document != pair.a.document]
            assert any(same_part(pair.b, other.b) for other in others)


@given(windows, keys)
def test_examples_hold_the_exchanged_pairs(window: Window, key: int) -> None:
    examples = [example for example in examples_of(BERT, window, key) if is_pair(example)]
    for example, pair in zip(examples, pairs_of(window, key), strict=True):
        a, b = pair.a.tokens.tolist(), pair.b.tokens.tolist()
        assert restored(example).tolist() == [V.cls, *a, V.sep, *b, V.sep]
        assert example.segments.tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        assert example.targets["nsp"].positions.tolist() == [0]
        assert example.targets["nsp"].labels.tolist() == [pair.label]
        assert example.document == pair.a.document


@given(sized_windows(), keys)
def test_a_wrong_pair_of_more_than_w_tokens_loses_the_end_of_b(
    drawn: tuple[int, Window], key: int
) -> None:
    size, window = drawn
    examples = [e for e in examples_of(build("bert", window=size), window, key) if is_pair(e)]
    for example, pair in zip(examples, pairs_of(window, key), strict=True):
        a, b = pair.a.tokens.tolist(), pair.b.tokens.tolist()
        kept = b[: size - len(a)]
        assert kept
        assert pair.label == WRONG or kept == b
        assert restored(example).tolist() == [V.cls, *a, V.sep, *kept, V.sep]


@pytest.mark.parametrize("documents", [2, 3, 4, 5, 8])
def test_labels_are_balanced_in_expectation(documents: int) -> None:
    window = two_sentence_documents(documents)
    wrong = [sum(pair.label == WRONG for pair in pairs_of(window, key)) for key in range(3000)]
    assert_mean(np.array(wrong), documents / 2)
    assert 1 not in wrong, "one pair alone cannot be exchanged"


def test_every_document_is_equally_likely_to_be_exchanged() -> None:
    window, counts = two_sentence_documents(5), np.zeros(5)
    for key in range(4000):
        for pair in pairs_of(window, key):
            counts[pair.a.document] += pair.label == WRONG
    assert np.ptp(counts) < 6 * np.sqrt(4000 * 0.25)


@given(windows, keys)
def test_a_lone_piece_has_one_segment_and_no_pair_label(window: Window, key: int) -> None:
    for example in examples_of(BERT, window, key):
        if not is_pair(example):
            assert not example.segments.any()
            piece = next(p for p in window.pieces if p.document == example.document)
            assert restored(example).tolist() == [V.cls, *piece.tokens.tolist(), V.sep]


def test_the_budget_is_that_of_the_pair() -> None:
    pieces = (random_piece(50, 1, document=0), random_piece(50, 2, document=1))
    counts = [
        sum(len(e.targets["tokens"].labels) for e in examples_of(BERT, Window(0, 0, pieces), key))
        for key in range(1500)
    ]
    assert_mean(np.array(counts), 15)


def test_words_of_a_and_b_are_never_joined_over_the_separator() -> None:
    pieces = tuple(
        make_piece(range(40, 48), words=(0, 4), sentences=(0, 4), document=d) for d in range(2)
    )
    objective = build("bert", unit="word", mask_rate=0.4)
    for key in range(50):
        for example in examples_of(objective, Window(0, 0, pieces), key):
            places = set(example.targets["tokens"].positions.tolist())
            assert places in ({1, 2, 3, 4}, {6, 7, 8, 9})


def test_both_labels_come() -> None:
    pieces = tuple(random_piece(40, d, document=d) for d in range(4))
    labels = {
        int(example.targets["nsp"].labels[0])
        for key in range(20)
        for example in examples_of(BERT, Window(0, 0, pieces), key)
        if is_pair(example)
    }
    assert labels == {RIGHT, WRONG}


def test_the_weight_is_that_of_the_pair_head_alone() -> None:
    tokens, pairs = build("bert", pair_weight=0.5).heads
    assert (tokens.name, tokens.weight) == ("tokens", 1.0)
    assert (pairs.name, pairs.weight, pairs.labels) == ("nsp", 0.5, ("next", "random"))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"objective\.pair_weight"):
        build("bert", pair_weight=weight)


def orders_of(window: Window, key: int) -> list[Pair]:
    rng = CounterRng(key)
    return swap_half(cut_pieces(window.pieces, "sop", rng)[0], rng)


def answers(example: Example, task: str) -> list[int]:
    return example.targets[task].labels.tolist() if task in example.targets else []


@given(windows, keys, st.sampled_from(["token", "word", "ngram", "span"]))
def test_the_order_of_sentences_masked(window: Window, key: int, unit: str) -> None:
    examples = examples_of(build("bert", pairs="sop", unit=unit), window, key)
    found = sorted(token for example in examples for token in text_of(example))
    assert found == sorted(token for piece in window.pieces for token in piece.tokens.tolist())
    pairs = orders_of(window, key)
    for example, pair in zip(examples, pairs, strict=False):
        a, b = pair.a.tokens.tolist(), pair.b.tokens.tolist()
        assert restored(example).tolist() == [V.cls, *a, V.sep, *b, V.sep]
        assert example.segments.tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        assert answers(example, "sop") == [pair.label]
    assert not any(answers(example, "sop") for example in examples[len(pairs) :])


@given(windows, keys)
def test_a_swapped_pair_stands_in_order_when_swapped_back(window: Window, key: int) -> None:
    ordered, _ = cut_pieces(window.pieces, "sop", CounterRng(key))
    for own, pair in zip(ordered, orders_of(window, key), strict=True):
        back = pair if pair.label == RIGHT else pair.swapped()
        assert same_part(own.a, back.a)
        assert same_part(own.b, back.b)


@pytest.mark.parametrize("documents", [1, 2, 3, 8])
def test_half_of_the_pairs_are_swapped(documents: int) -> None:
    pieces = [make_piece([40, 41, 42], sentences=(0, 1, 2), document=d) for d in range(documents)]
    window = Window(0, 0, tuple(pieces))
    wrong = [sum(pair.label == WRONG for pair in orders_of(window, key)) for key in range(2000)]
    assert set(wrong) == {documents // 2, (documents + 1) // 2}
    assert_mean(np.array(wrong), documents / 2)


@given(sized_windows(), keys, st.sampled_from(["nsp", "sop"]))
def test_bert_pairing_masks_the_pairs_of_bert(
    drawn: tuple[int, Window], key: int, task: Task
) -> None:
    size, window = drawn
    objective = build("bert", pairs=task, pairing="bert", window=size)
    pairs = bert_pairs(window.pieces, task, size, CounterRng(key))
    for example, pair in zip(examples_of(objective, window, key), pairs, strict=True):
        a, b = pair.a.tokens.tolist(), pair.b.tokens.tolist()
        assert restored(example).tolist() == [V.cls, *a, V.sep, *b, V.sep]
        assert answers(example, task) == [pair.label]
        assert len(example) <= size + 3


def test_the_published_bert_counts_its_three_special_tokens() -> None:
    """Of 27 tokens and 3 special ones 15% are 4.5, which Python rounds to 4; of 25 and 2, 4."""
    objective = build("bert", pairing="bert", compat="bert", window=27)
    piece = make_piece([40] * 27, sentences=(0, 13))
    counts = {
        (len(example), len(example.targets["tokens"].labels))
        for key in range(100)
        for example in examples_of(objective, Window(0, 0, (piece,)), key)
    }
    assert (30, 4) in counts
    assert all(count == max(1, round(n * 0.15)) for n, count in counts)


def test_the_mask_follows_its_schedule() -> None:
    context = Context(V, 1000, steps=11)
    config = BertConfig.model_validate({"mask_rate": 0.5, "final_mask_rate": 0.1})
    pieces = tuple(make_piece([40] * 50, sentences=(0, 20), document=d) for d in range(2))

    def masked(step: int | None) -> int:
        window = Window(0, 0, pieces, step=step)
        examples = Bert(config, context).examples(window, CounterRng(0))
        return sum(len(example.targets["tokens"].labels) for example in examples)

    assert [masked(step) for step in (0, 5, 10, None)] == [50, 30, 10, 10]


@pytest.mark.parametrize(("task", "sentences"), [("nsp", (0, 20)), ("sop", (0, 20, 30))])
def test_the_cost_is_that_of_the_examples(task: Task, sentences: tuple[int, ...]) -> None:
    pieces = [make_piece([40] * 40, sentences=sentences, document=d) for d in range(4)]
    objective = build("bert", pairs=task)
    examples, cost = examples_of(objective, Window(0, 0, tuple(pieces)), 1), objective.cost(40)
    assert sum(map(len, examples)) == 4 * cost.positions
    targets = sum(len(t.labels) for example in examples for t in example.targets.values())
    assert targets == 4 * cost.targets


def test_the_cost_of_bert_pairing_is_that_of_texts_of_many_sentences() -> None:
    objective = build("bert", pairing="bert")
    pieces = [make_piece([50] * 80, sentences=range(80), document=d) for d in range(6)]
    examples = [
        example
        for key in range(200)
        for example in examples_of(objective, Window(0, 0, tuple(pieces)), key)
    ]
    cost = objective.cost(80)
    assert sum(map(len, examples)) / 1200 == pytest.approx(cost.positions, rel=0.05)
    targets = sum(len(t.labels) for example in examples for t in example.targets.values())
    assert targets / 1200 == pytest.approx(cost.targets, rel=0.05)


def test_the_head_is_that_of_the_pairs() -> None:
    tokens, pairs = build("bert", pairs="sop", pooling="pair").heads
    assert (tokens.name, pairs.name, pairs.kind) == ("tokens", "sop", "pair")
    assert pairs.labels == ("ordered", "swapped")


def test_windows_of_one_document_are_refused_where_a_random_b_would_be_of_the_same() -> None:
    context = Context(V, 64, documents=10, tokens=10_000)
    with pytest.raises(ObjectiveError, match="pairs documents of one window"):
        Bert(BertConfig(pairing="bert"), context)
    Bert(BertConfig(), context)
    Bert(BertConfig(pairing="bert", pairs="sop"), context)


def test_the_mask_of_roberta_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no pairs"):
        build("bert", compat="roberta")
