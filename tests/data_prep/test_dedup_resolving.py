import random
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.dedup import Duplicates, Kind, combine, resolve


def in_tasks(pairs: list[tuple[int, int]], seed: int) -> list[np.ndarray]:
    """The pairs dealt to some tasks, each of which sorts its own, some pairs twice."""
    rng = random.Random(seed)
    tasks: list[list[tuple[int, int]]] = [[] for _ in range(rng.randint(1, 4))]
    for pair in pairs:
        for _ in range(rng.randint(1, 2)):
            rng.choice(tasks).append(pair)
    rows = [sorted(task, key=lambda pair: pair[::-1]) for task in tasks]
    return [np.array(task, dtype=np.uint64).reshape(-1, 2) for task in rows]


edges = st.lists(
    st.tuples(st.integers(0, 19), st.integers(0, 19)).filter(lambda pair: pair[0] < pair[1]),
    max_size=40,
    unique=True,
)


@given(pairs=edges, seed=st.integers(0, 99), memory=st.sampled_from([1, 500, 1 << 28]))
def test_a_document_is_dropped_if_it_matches_an_earlier_kept_one(
    pairs: list[tuple[int, int]], seed: int, memory: int
) -> None:
    kept: list[int] = []
    expected = {}
    for document in range(20):
        matched = [other for other in kept if (other, document) in pairs]
        if matched:
            expected[document] = min(matched)
        else:
            kept.append(document)
    result = resolve(in_tasks(pairs, seed), 20, Kind.NEAR, memory_bytes=memory)
    assert result.documents.tolist() == list(expected)
    assert result.originals.tolist() == list(expected.values())
    assert result.kinds.tolist() == [Kind.NEAR] * len(expected)


def test_a_chain_drops_no_document_unlike_the_kept_ones(tmp_path: Path) -> None:
    chain = np.array([[number, number + 1] for number in range(9)], dtype=np.uint64)
    np.save(tmp_path / "pairs.npy", chain)
    np.save(tmp_path / "none.npy", chain[:0])
    files = [tmp_path / "pairs.npy", tmp_path / "none.npy"]
    result = resolve(files, 10, Kind.EXACT, memory_bytes=200)
    assert result.documents.tolist() == [1, 3, 5, 7, 9]
    assert result.originals.tolist() == [0, 2, 4, 6, 8]


def test_no_pairs() -> None:
    for documents in (0, 5):
        result = resolve([], documents, Kind.NEAR)
        assert len(result.documents) == len(result.originals) == len(result.kinds) == 0


def duplicates(rows: list[tuple[int, int]], kind: Kind) -> Duplicates:
    table = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    return Duplicates(table[:, 0], table[:, 1], np.full(len(table), kind, dtype=np.uint8))


def test_an_exact_copy_follows_its_original() -> None:
    exact = duplicates([(2, 0), (5, 4), (8, 4), (9, 3)], Kind.EXACT)
    near = duplicates([(4, 1), (7, 0)], Kind.NEAR)
    both = combine(exact, near)
    assert both.documents.tolist() == [2, 4, 5, 7, 8, 9]
    assert both.originals.tolist() == [0, 1, 1, 0, 1, 3]
    assert both.kinds.tolist() == [0, 1, 1, 1, 1, 0]
    for one in (exact, near):
        nothing = duplicates([], Kind.NEAR)
        assert combine(one, nothing).documents.tolist() == one.documents.tolist()
        assert combine(nothing, one).originals.tolist() == one.originals.tolist()
