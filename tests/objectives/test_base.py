"""What every objective promises, whatever it predicts. A new objective is tested here unasked."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megapt.data import (
    RESERVED,
    CounterRng,
    Example,
    Window,
)
from megapt.objectives import OBJECTIVES
from tests.chance import assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import (
    VOCABULARY,
    cut_random_documents,
    keys,
    make_piece,
    random_piece,
    sized_windows,
)

V = VOCABULARY
every_objective = pytest.mark.parametrize("name", sorted(OBJECTIVES))
WINDOW = cut_random_documents([40, 60, 20, 70, 30, 50], 300, "fill")[0]


def plain(example: Example) -> tuple[object, ...]:
    """All of an example, comparable."""
    targets = {
        head: (
            target.positions.tolist(),
            target.labels.tolist(),
            target.size,
            *(None if each is None else each.tolist() for each in (target.weights, target.draws)),
        )
        for head, target in example.targets.items()
    }
    arrays = (example.tokens, example.positions, example.segments, example.visible)
    return (*(array.tolist() for array in arrays), targets, example.document)


@every_objective
@given(drawn=sized_windows(), key=keys)
@settings(max_examples=80)
def test_examples_are_well_formed_and_fit_their_row(
    name: str, drawn: tuple[int, Window], key: int
) -> None:
    size, window = drawn
    objective = build(name, window=size)
    heads = {head.name: head for head in objective.heads}
    for example in examples_of(objective, window, key):
        n = len(example)
        assert 0 < n <= objective.longest_example(size)
        assert set(example.targets) <= set(heads)
        assert any(len(target.labels) for target in example.targets.values())
        for array in (example.tokens, example.positions, example.segments):
            assert len(array) == n
            assert np.issubdtype(array.dtype, np.integer)
        assert (len(example.visible), example.visible.dtype) == (n, np.bool_)
        assert ((example.tokens >= 0) & (example.tokens < V.size)).all()
        assert V.pad not in example.tokens
        assert ((example.positions >= 0) & (example.positions < size + RESERVED)).all()
        assert set(example.segments) <= set(range(max(objective.segments, 1)))
        for head, target in example.targets.items():
            limit = heads[head].classes or V.size
            assert len(target.positions) == len(target.labels)
            assert np.issubdtype(target.positions.dtype, np.integer)
            assert np.issubdtype(target.labels.dtype, np.integer)
            assert len(set(target.positions.tolist())) == len(target.positions)
            assert ((target.positions >= 0) & (target.positions < n)).all()
            assert ((target.labels >= 0) & (target.labels < limit)).all()


@every_objective
def test_all_segments_that_it_tells_apart_occur(name: str) -> None:
    """A table of embeddings would have rows that nothing reads."""
    objective = build(name)
    examples = [e for key in range(20) for e in examples_of(objective, WINDOW, key)]
    assert {id_ for e in examples for id_ in e.segments} == set(range(max(objective.segments, 1)))
    assert objective.segments != 1


@every_objective
@given(drawn=sized_windows(), key=keys)
@settings(max_examples=30)
def test_examples_see_what_the_attention_kind_says(
    name: str, drawn: tuple[int, Window], key: int
) -> None:
    objective = build(name)
    for example in examples_of(objective, drawn[1], key):
        shown = int(example.visible.sum())
        assert example.visible[:shown].all(), "what is visible stands first"
        if objective.attention == "causal":
            assert shown == 0
        if objective.attention == "bidirectional":
            assert shown == len(example)


@every_objective
@given(drawn=sized_windows(), key=keys)
@settings(max_examples=30)
def test_examples_are_a_pure_function_of_window_and_key(
    name: str, drawn: tuple[int, Window], key: int
) -> None:
    _, window = drawn
    before = copy.deepcopy(window)
    objective = build(name)
    first = list(map(plain, examples_of(objective, window, key)))
    examples_of(objective, WINDOW, key)
    assert list(map(plain, examples_of(objective, window, key))) == first
    assert list(map(plain, examples_of(build(name), before, key))) == first
    for piece, old in zip(window.pieces, before.pieces, strict=True):
        assert piece.tokens.tolist() == old.tokens.tolist()
        assert piece.word_starts.tolist() == old.word_starts.tolist()
        assert piece.sentence_starts.tolist() == old.sentence_starts.tolist()


@every_objective
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@given(drawn=sized_windows(), key=keys)
@settings(max_examples=15)
def test_narrow_views_of_the_corpus_give_the_same_examples(
    name: str, dtype: type[np.unsignedinteger], drawn: tuple[int, Window], key: int
) -> None:
    size, wide = drawn
    pieces = []
    for piece in wide.pieces:
        tokens = piece.tokens.astype(dtype)
        tokens.setflags(write=False)
        pieces.append(replace(piece, tokens=tokens))
    objective = build(name, window=size)
    narrow = examples_of(objective, replace(wide, pieces=tuple(pieces)), key)
    assert list(map(plain, narrow)) == list(map(plain, examples_of(objective, wide, key)))
    assert {example.tokens.dtype for example in narrow} <= {np.dtype(dtype)}, "widened"


@every_objective
def test_a_window_without_text_gives_no_examples(name: str) -> None:
    """All of its shards may have been skipped."""
    assert examples_of(build(name), Window(0, 0, ()), 1) == []


@every_objective
@pytest.mark.parametrize("length", [2, 11, 40])
def test_the_cost_is_what_texts_cost_on_average(name: str, length: int) -> None:
    """Of whole documents of two sentences, so that each finds a partner."""
    half = length // 2
    sentences = sorted({0, half // 2, half, (length + half) // 2})
    pieces = tuple(
        make_piece([50 + number] * length, sentences=sentences, document=number, label=number % 2)
        for number in range(4)
    )
    objective = build(name)
    positions, targets = [], []
    for key in range(600):
        examples = examples_of(objective, Window(0, 0, pieces), "cost", key)
        positions.append(sum(map(len, examples)) / len(pieces))
        asked = [target for example in examples for target in example.targets.values()]
        targets.append(sum(len(target.labels) for target in asked) / len(pieces))
    cost = objective.cost(length)
    if name == "sop":  # Leaves out sentences that would betray the order.
        assert max(positions) <= cost.positions
        assert max(targets) <= cost.targets
        return
    assert_mean(positions, cost.positions)
    assert_mean(targets, cost.targets)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"arlm"}))
def test_windows_of_equal_text_are_not_given_equal_noise(name: str) -> None:
    """Nor is a window in another epoch."""
    window = cut_random_documents([30] * 8, 240, "fill")[0]
    objective = build(name)
    seen = {
        str([plain(example) for example in examples_of(objective, window, 1, epoch, index)])
        for epoch in range(2)
        for index in range(20)
    }
    # A mixture may hold an objective that draws nothing, and few sentences can be cut in few ways.
    assert len(seen) > {"mixture": 10, "sop": 35}.get(name, 39)


@every_objective
def test_what_it_is_asked_after_training_looks_like_its_examples(name: str) -> None:
    objective = build(name)
    text = np.array([50, 51, V.mask, 53])
    shown = objective.present(text)
    assert not shown.targets
    assert text.tolist() in [shown.tokens[i : i + 4].tolist() for i in range(len(shown))]
    prompt, masked = objective.prompt(text), objective.masked(text)
    if prompt is not None:
        assert not prompt.targets
        assert not prompt.visible[-1] or objective.attention == "prefix"
        assert prompt.positions.max() < len(text) + RESERVED
    if masked is not None:
        asked = masked.targets["tokens"]
        assert masked.tokens[asked.positions].tolist() == [V.mask]
        assert asked.labels.tolist() == [0]
    assert not objective.rewrites or prompt is not None


@every_objective
def test_it_names_the_heads_that_answer(name: str) -> None:
    objective, text = build(name), np.array([50, V.mask, 53])
    modules = {head.owner for head in objective.heads}
    prompt, writes = objective.prompt(text), objective.next_token_head
    assert (prompt is None) == (writes is None)
    assert writes is None or (writes.kind == "token" and writes.owner in modules)
    for asked, head in (
        (objective.masked(text), objective.masked_token_head),
        (objective.classified(text), objective.class_head),
    ):
        assert (asked is None) == (head is None)
        if asked is not None and head is not None:
            assert list(asked.targets) == [head.owner]
            assert head.owner in modules
    assert objective.uses_labels == (name == "msc")


@every_objective
def test_the_longest_example_is_that_of_the_longest_piece(name: str) -> None:
    """A bound that no example comes near would waste rows."""
    size = 32
    pieces = tuple(random_piece(size, seed, document=seed) for seed in range(2))
    objective = build(name, window=size)
    window = Window(0, 0, pieces)
    longest = max(len(e) for key in range(40) for e in examples_of(objective, window, key))
    bound = objective.longest_example(size)
    assert (0.85 * bound if name == "infilling" else bound - RESERVED) < longest <= bound


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"arlm"}))
@pytest.mark.parametrize("place", range(4))
def test_seed_epoch_window_and_name_each_change_the_draws(name: str, place: int) -> None:
    usual = [7, 0, 3, name]
    other = list(usual)
    other[place] = "another" if place == 3 else 8
    objective = build(name)
    first, second = (examples_of(objective, WINDOW, *key) for key in (usual, other))
    assert list(map(plain, first)) != list(map(plain, second))


@every_objective
def test_examples_name_their_documents(name: str) -> None:
    found = {example.document for example in examples_of(build(name), WINDOW, 1)}
    documents = {piece.document for piece in WINDOW.pieces}
    assert found == documents or (name == "sop" and found < documents)


@every_objective
@given(length=st.integers(1, 30))
@settings(max_examples=10)
def test_plain_text_stands_at_positions_1_to_n(name: str, length: int) -> None:
    """The frozen trunks of all objectives are compared on the same text at the same places."""
    tokens = np.arange(40, 40 + length)
    example = build(name).present(tokens)
    assert example.tokens[1 : length + 1].tolist() == tokens.tolist()
    assert example.positions[1 : length + 1].tolist() == list(range(1, length + 1))
    assert not set(example.tokens.tolist()) - set(tokens.tolist()) - {V.bos, V.cls, V.sep}
    assert set(example.segments.tolist()) == {0}
    assert not example.targets


@every_objective
def test_only_causal_and_prefix_objectives_generate(name: str) -> None:
    objective = build(name)
    prompt = objective.prompt(np.array([40, 41]))
    assert (prompt is not None) == (objective.attention != "bidirectional")
    if prompt is not None:
        assert not prompt.targets


@every_objective
def test_a_sample_is_asked_with_its_beginning_or_with_masks(name: str) -> None:
    objective, tokens = build(name), random_piece(40, 1).tokens
    asked = objective.sample_prompt(tokens, CounterRng("samples", 1))
    assert asked.tolist() == objective.sample_prompt(tokens, CounterRng("samples", 1)).tolist()
    if objective.rewrites:
        masked = asked == V.mask
        assert 0 < masked.sum() < len(tokens)
        assert asked[~masked].tolist() == tokens[~masked].tolist()
    else:
        assert asked.tolist() == tokens[: len(asked)].tolist()
