from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import Batch, Counts, Example, Targets, collate, make_example
from megapt.data.batch import PackedBatch, group_examples
from megapt.data.counts import attended_pairs
from megapt.data.packing import Rows, first_fit
from megapt.data.targets import HeadTargets, narrow

PAD = 0


def allowed(example: Example) -> np.ndarray:
    """Which key each query may see, straight from the definition in `Example`."""
    n = len(example)
    return np.array(
        [[j <= i or bool(example.visible[j]) for j in range(n)] for i in range(n)]
    ).reshape(n, n)


@st.composite
def random_examples(draw: st.DrawFn) -> Example:
    n = draw(st.integers(1, 8))
    attention = draw(st.sampled_from(["causal", "bidirectional", "prefix"]))
    places = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    targets = {"tokens": Targets(np.array(places, dtype=np.int64), 100 + np.arange(len(places)))}
    if draw(st.booleans()):
        targets["class"] = Targets(np.zeros(1, dtype=np.int64), np.array([1]))
    return make_example(
        draw(st.lists(st.integers(1, 99), min_size=n, max_size=n)),
        attention,
        targets,
        positions=np.array(draw(st.permutations(range(n))), dtype=np.int64),
        segments=np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))),
        prefix=draw(st.integers(0, n)),
    )


some = st.lists(random_examples(), min_size=1, max_size=8)
openings = st.integers(1, 4)


def pack(examples: list[Example], rows: Rows | None = None, **changes: Any) -> PackedBatch:
    heads = ["tokens", "class", "idle"]
    return collate(examples, pad=PAD, heads=heads, token_heads=["tokens"], rows=rows, **changes)


def concatenate(examples: list[Example], rows: Rows | None = None, **changes: Any) -> Batch:
    return pack(examples, rows, **changes).widen()


@given(st.lists(random_examples(), max_size=8))
def test_pairs_are_counted_as_the_mask_allows_them(examples: list[Example]) -> None:
    lengths = np.array([len(example) for example in examples], dtype=np.int64)
    visible = np.concatenate([np.zeros(0, dtype=bool), *(e.visible for e in examples)])
    assert attended_pairs(lengths, visible) == sum(allowed(e).sum() for e in examples)


@given(some)
def test_examples_lie_end_to_end(examples: list[Example]) -> None:
    batch = concatenate(examples)
    assert batch.starts.tolist() == [0, *np.cumsum([len(e) for e in examples]).tolist()]
    for name in ("tokens", "positions", "segments", "visible"):
        laid = np.concatenate([getattr(example, name) for example in examples])
        assert getattr(batch, name).tolist() == laid.tolist()


@given(some)
def test_targets_point_at_the_same_tokens_in_the_batch(examples: list[Example]) -> None:
    batch = concatenate(examples)
    for head in ("tokens", "class"):
        expected = [
            (int(example.tokens[place]), int(label))
            for example in examples
            if head in example.targets
            for place, label in zip(
                example.targets[head].positions, example.targets[head].labels, strict=True
            )
        ]
        asked = batch.targets[head]
        tokens = batch.tokens[asked.places].tolist()
        assert list(zip(tokens, asked.labels.tolist(), strict=True)) == expected
        assert asked.size == len(asked) == len(expected)


@given(some)
def test_every_example_is_in_one_group_in_order(examples: list[Example]) -> None:
    batch = concatenate(examples)
    nothing, found = len(batch.tokens), []
    for group in batch.groups:
        for places in group.tolist():
            inside = [place for place in places if place < nothing]
            assert places == [*inside, *[nothing] * (len(places) - len(inside))]
            found.append((inside[0], inside[-1] + 1))
            assert inside == list(range(*found[-1]))
    starts = batch.starts.tolist()
    assert sorted(found) == list(pairwise(starts))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_examples_of_a_group_are_of_like_length(lengths: list[int]) -> None:
    starts = np.cumsum([0, *lengths])
    for group in group_examples(starts):
        sizes = (group < starts[-1]).sum(axis=1)
        assert sizes.max() == group.shape[1]
        assert sizes.min() >= 0.75 * sizes.max()


@given(some)
def test_counts(examples: list[Example]) -> None:
    per_head = {
        head: sum(len(e.targets[head].labels) for e in examples if head in e.targets)
        for head in ("tokens", "class")
    }
    assert concatenate(examples, raw_tokens=17).counts == Counts(
        raw_tokens=17,
        positions=sum(map(len, examples)),
        targets=sum(per_head.values()),
        token_targets=per_head["tokens"],
        pairs=sum(int(allowed(example).sum()) for example in examples),
        slots=sum(map(len, examples)),
    )


def test_counts_add_up_by_axis() -> None:
    ones, tens = Counts(1, 2, 3, 4, 5, 6), Counts(10, 20, 30, 40, 50, 60)
    assert ones + tens == Counts(11, 22, 33, 44, 55, 66)


def test_a_batch_without_examples_holds_one_position_that_counts_nothing() -> None:
    batch = concatenate([])
    assert batch.tokens.tolist() == [PAD]
    assert batch.starts.tolist() == [0, 1]
    assert [group.tolist() for group in batch.groups] == [[[0]]]
    assert list(batch.targets) == ["tokens", "class", "idle"]
    assert all(len(t.places) == len(t) == t.size == 0 for t in batch.targets.values())
    assert batch.counts == Counts()


@pytest.mark.parametrize("examples", [[], [make_example([5, 6], "causal", {})]])
def test_all_tensors_have_the_dtypes_that_the_model_reads(examples: list[Example]) -> None:
    batch = concatenate(examples)
    whole = [batch.tokens, batch.positions, batch.segments, batch.starts, *batch.groups]
    whole += [tensor for asked in batch.targets.values() for tensor in tensors_of(asked)]
    assert {tensor.dtype for tensor in whole} == {torch.int64}
    assert batch.visible.dtype == torch.bool


@pytest.mark.parametrize(
    ("attention", "visible"),
    [("causal", [0, 0, 0]), ("bidirectional", [1, 1, 1]), ("prefix", [1, 1, 0])],
)
def test_defaults_of_an_example(attention: str, visible: list[int]) -> None:
    example = make_example([7, 8, 9], attention, {}, prefix=2)
    assert example.visible.tolist() == [bool(v) for v in visible]
    assert example.positions.tolist() == [0, 1, 2]
    assert example.segments.tolist() == [0, 0, 0]
    assert len(example) == 3


def test_a_batch_moves_as_a_whole() -> None:
    batch = concatenate([make_example([5, 6], "causal", {})], key=9)
    moved = batch.to(torch.device("meta"))
    tensors = [moved.tokens, moved.positions, moved.segments, moved.visible, moved.starts]
    tensors += [tensor for asked in moved.targets.values() for tensor in tensors_of(asked)]
    assert all(tensor.device.type == "meta" for tensor in [*tensors, *moved.groups])
    assert (moved.counts, moved.key) == (batch.counts, 9)


def tensors_of(asked: HeadTargets) -> list[torch.Tensor]:
    every = (asked.places, asked.labels, asked.weights, asked.draws)
    return [tensor for tensor in every if tensor is not None]


def same(found: Batch, expected: Batch) -> bool:
    names = ("tokens", "positions", "segments", "visible", "starts")
    pairs = [(getattr(found, name), getattr(expected, name)) for name in names]
    pairs += zip(found.groups, expected.groups, strict=True)
    for head, asked in expected.targets.items():
        pairs += zip(tensors_of(found.targets[head]), tensors_of(asked), strict=True)
    plain = ("counts", "attention", "row_length", "key")
    return (
        found.targets.keys() == expected.targets.keys()
        and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
        and all(getattr(found, name) == getattr(expected, name) for name in plain)
    )


layouts = st.one_of(st.none(), st.builds(Rows, st.integers(8, 20), st.integers(0, 9), openings))


@given(st.lists(random_examples(), max_size=8), layouts)
def test_a_batch_survives_the_way_to_another_process(
    examples: list[Example], rows: Rows | None
) -> None:
    packed = pack(examples, rows, key=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that it must not write to
        assert same(pickle.loads(pickle.dumps(packed)).widen(), packed.widen())


def test_a_packed_batch_is_small() -> None:
    places = np.arange(2048)
    examples = [make_example(places, "causal", {"tokens": Targets(places, places)})] * 8
    packed = pack(examples)
    # 6 bytes for a position and 4 for a target; int64 tensors would take 25 and 16.
    assert len(pickle.dumps(packed)) < 10 * 8 * 2048 + 2000
    assert packed.tokens.dtype == packed.positions.dtype == np.uint16
    assert packed.segments.dtype == np.uint8
    assert packed.starts.dtype == np.int32


@pytest.mark.parametrize(("largest", "dtype"), [(65535, np.uint16), (65536, np.uint32)])
def test_large_vocabularies_take_wider_types(largest: int, dtype: type) -> None:
    targets = {"tokens": Targets(np.array([1]), np.array([largest]))}
    packed = pack([make_example([0, largest], "causal", targets)])
    assert packed.tokens.dtype == packed.targets["tokens"].labels.dtype == dtype
    batch = packed.widen()
    assert batch.tokens.tolist() == [0, largest]
    assert batch.targets["tokens"].labels.tolist() == [largest]


@pytest.mark.parametrize(("wrong", "dtype"), [(-1, "i2"), (-1, "i4"), (-1, "i8"), (2**32, "i8")])
def test_a_number_that_no_type_holds_is_refused(wrong: int, dtype: str) -> None:
    with pytest.raises(ValueError, match="do not fit uint32"):
        narrow(np.array([3, wrong], dtype), np.uint16, np.uint32)


def test_a_batch_does_not_depend_on_how_wide_its_examples_are() -> None:
    def packed(dtype: str) -> PackedBatch:
        numbers = np.array([0, 1, 2], dtype)
        asked = Targets(numbers[1:2], numbers[:1])
        targets = {"tokens": Targets(numbers, 7 + numbers), "class": asked}
        example = make_example(
            5 + numbers, "causal", targets, positions=numbers, segments=numbers % 2
        )
        return pack([example, example], Rows(8, 2, 1), raw_tokens=6)

    narrowest = pickle.dumps(packed("u1"))
    for dtype in ("u2", "u4", "i2", "i4", "i8"):
        assert pickle.dumps(packed(dtype)) == narrowest
    mixed = [make_example(np.array([5], dtype), "causal", {}) for dtype in ("u2", "u4", "i8")]
    assert pack(mixed).tokens.dtype == np.uint16


@given(some, st.integers(8, 20), st.integers(0, 9), openings)
def test_in_rows_examples_lie_where_first_fit_puts_them(
    examples: list[Example], length: int, count: int, open_rows: int
) -> None:
    flat = concatenate(examples)
    batch = concatenate(examples, Rows(length, count, open_rows), key=4)
    rows, starts = first_fit(map(len, examples), length, open_rows)
    assert batch.row_length == length
    assert len(batch.tokens) == length * max(count, int(rows.max()) + 1)
    firsts = length * rows + starts
    places = torch.from_numpy(
        np.concatenate([f + np.arange(len(e)) for f, e in zip(firsts, examples, strict=True)])
    )
    for name in ("tokens", "positions", "segments", "visible"):
        assert torch.equal(getattr(batch, name)[places], getattr(flat, name))
    left = torch.ones(len(batch.tokens), dtype=torch.bool)
    left[places] = False
    assert (batch.tokens[left] == PAD).all()
    # Fillers are examples of their own, and no example crosses the end of a row.
    borders = set(firsts.tolist()) | set(range(0, len(batch.tokens) + 1, length))
    borders |= set((firsts + [len(e) for e in examples]).tolist())
    assert batch.starts.tolist() == sorted(borders)
    for head, old in flat.targets.items():
        found = zip(*(tensor.tolist() for tensor in tensors_of(batch.targets[head])), strict=True)
        moved = places[old.places].tolist()
        assert sorted(found) == sorted(zip(moved, old.labels.tolist(), strict=True))


@given(some, st.integers(8, 20), st.integers(0, 9), openings)
def test_fillers_count_as_slots_alone(
    examples: list[Example], length: int, count: int, open_rows: int
) -> None:
    batch = concatenate(examples, Rows(length, count, open_rows), raw_tokens=17)
    assert batch.counts == replace(
        concatenate(examples, raw_tokens=17).counts, slots=len(batch.tokens)
    )


@given(some, layouts)
def test_the_kind_of_attention_is_known(examples: list[Example], rows: Rows | None) -> None:
    """Fillers do not change it, so that kernels without masks take batches in rows."""
    seen = {bool(key) for example in examples for key in example.visible}
    expected = "prefix" if len(seen) == 2 else "bidirectional" if True in seen else "causal"
    assert concatenate(examples, rows).attention == expected


def test_rows_without_examples_are_fillers() -> None:
    assert concatenate([], Rows(4, 0, 1)).starts.tolist() == [0, 4]
    batch = concatenate([], Rows(4, 2, 1))
    assert batch.tokens.tolist() == [PAD] * 8
    assert batch.starts.tolist() == [0, 4, 8]
    assert batch.counts == Counts(slots=8)


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="example 0 takes 3 positions, 1 more than the 2 of a row"):
        pack([make_example([5, 6, 7], "causal", {})], Rows(2, 1, 1))


def test_weights_sizes_and_draws_reach_the_model() -> None:
    def asks(*places: int, **more: object) -> Example:
        positions = np.array(places, dtype=np.int64)
        target = Targets(positions, 7 + positions, **more)  # type: ignore[arg-type]
        return make_example([1, 2, 3], "causal", {"tokens": target})

    examples = [
        asks(0, weights=np.array([2.5]), size=3),
        asks(1, 2),
        asks(size=4.0),  # Nothing to predict, but it counts.
    ]
    found = concatenate(examples, per_window=[2, 0, 1]).targets["tokens"]
    assert found.places.tolist() == [0, 4, 5]
    assert found.weights is not None
    assert found.weights.tolist() == [2.5, 1, 1]
    assert found.weights.dtype == torch.float32
    assert found.size == 3 + 2 + 4
    assert found.draws is None
    assert found.windows == 2


def test_windows_that_ask_are_counted_for_each_head() -> None:
    label = {"class": Targets(np.zeros(1, dtype=np.int64), np.array([1]))}
    plain, asking = make_example([1], "causal", {}), make_example([1], "causal", label)
    batch = concatenate([asking, asking, plain, asking], per_window=[2, 1, 0, 1])
    assert batch.targets["class"].windows == 2
    assert batch.targets["idle"].windows == 0


def test_windows_are_those_of_a_member_of_a_mixture() -> None:
    target = Targets(np.zeros(1, dtype=np.int64), np.array([1]))
    examples = [
        make_example([1], "causal", dict.fromkeys(parts, target))
        for parts in (["a/x"], ["a/x", "a/y"], ["b/x"])
    ]
    packed = collate(examples, pad=PAD, heads=["a/x", "a/y", "b/x"], per_window=[1, 1, 1])
    assert {part: asked.windows for part, asked in packed.targets.items()} == {
        "a/x": 2,
        "a/y": 2,
        "b/x": 1,
    }
