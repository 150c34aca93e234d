"""One sequence of global batches for any ranks, workers and micro-batches, and any resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest

from megapt.data import Counts, Loader, LoaderState, Rows, TextMaker, open_corpora, open_stream
from megapt.data.state import digest_windows
from megapt.objectives import OBJECTIVES
from tests.data.loading import (
    GLOBAL_BATCH,
    Arrays,
    Job,
    OpenMaker,
    assert_same,
    describe_data,
    expected_batch,
    joined,
    open_maker,
    run,
)
from tests.data.reading.server import serve

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


class Case(NamedTuple):
    world: int
    workers: int
    micro: str
    source: str
    place: str
    kind: str
    policy: str


CHOICES = Case(
    (1, 2, 3, 4, 8),  # type: ignore[arg-type]
    (0, 1, 3),  # type: ignore[arg-type]
    ("one", "two", "share"),  # type: ignore[arg-type]
    ("single", "mixture"),  # type: ignore[arg-type]
    ("folder", "http"),  # type: ignore[arg-type]
    ("text", "mlm", "mgm"),  # type: ignore[arg-type]
    ("fill", "whole"),  # type: ignore[arg-type]
)


def covering(choices: Any) -> list[Case]:
    """Cases in which any two choices of any two kinds meet, far fewer than all that there are."""

    def pairs(case: Any) -> set[Any]:
        return set(combinations(enumerate(case), 2))

    cases = [Case(*values) for values in product(*choices)]
    missing = {pair for case in cases for pair in pairs(case)}
    chosen = []
    while missing:
        # Processes are what costs time, so of the best cases that with the fewest.
        best = max(cases, key=lambda case: (len(pairs(case) & missing), -case.world * case.workers))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


@pytest.fixture(scope="module")
def places(corpus_folder: Path, small_folder: Path) -> Iterator[dict[str, list[str]]]:
    """Where the corpora are: `folder` or `http` -> the large one and the small one."""
    folders = [corpus_folder, small_folder]
    with serve(corpus_folder) as large, serve(small_folder) as small:
        yield {"folder": [*map(str, folders)], "http": [large.url, small.url]}


@pytest.fixture
def opener(places: dict[str, list[str]], tmp_path: Path) -> Callable[..., OpenMaker]:
    """Say what a rank opens; what it fetches, it keeps in a cache of this test."""

    def make(
        kind: str, *, source: str = "single", place: str = "folder", rows: Any = None, **data: Any
    ) -> OpenMaker:
        where = places[place][: 1 if source == "single" else 2]
        settings = describe_data(*where, reading={"cache_dir": str(tmp_path / "cache")}, **data)
        return partial(open_maker, settings, kind, rows=rows)

    return make


_EXPECTED: dict[tuple[str, int], tuple[Arrays, int]] = {}
"""Of each kind of data and step, the global batch and the digest of its windows."""


def expected_of(open_one: OpenMaker, data: str, step: int) -> tuple[Arrays, int]:
    if (data, step) not in _EXPECTED:
        with open_one() as maker:
            numbers = range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
            digest = digest_windows(maker.stream.ids(numbers))
            _EXPECTED[data, step] = expected_batch(maker, step), digest
    return _EXPECTED[data, step]


@pytest.mark.parametrize("case", covering(CHOICES), ids=lambda case: "-".join(map(str, case)))
def test_nothing_of_how_a_run_is_spread_changes_its_global_batches(
    opener: Callable[..., OpenMaker], case: Case
) -> None:
    """Four steps with the end of an epoch in them, of a mixture also a new stage and a cap."""
    share = GLOBAL_BATCH // case.world
    job = Job(case.world, case.workers, {"one": 1, "two": 2, "share": share}[case.micro])
    data = {"source": case.source, "window_policy": case.policy}
    local = opener(case.kind, **data)
    with local() as maker:
        begun = LoaderState(maker.stream.identity, 5 * GLOBAL_BATCH)
    found, state = run(opener(case.kind, place=case.place, **data), job, 4, begun)
    assert list(found) == [5, 6, 7, 8]
    digest = 0
    for step, batches in found.items():
        batch, of_step = expected_of(local, f"{case.source} {case.policy} {case.kind}", step)
        assert_same(joined(batches), batch)
        digest += of_step
    assert (state.windows, state.digest) == (9 * GLOBAL_BATCH, digest % 2**128)


@pytest.mark.parametrize("source", ["single", "mixture"])
def test_the_cases_above_cross_what_they_say(opener: Callable[..., OpenMaker], source: str) -> None:
    with opener("text", source=source)() as maker:
        before, after = (maker.stream.epochs(step * GLOBAL_BATCH) for step in (5, 9))
    if source == "single":
        assert before["epoch"] < 1 < after["epoch"]
        return
    assert before["epoch/small"] < 1
    assert after["epoch/small"] == pytest.approx(1.5, abs=0.02), "all that it may give"


@pytest.mark.parametrize(
    ("source", "kind"), [("mixture", "mlm"), ("mixture", "mgm"), ("single", "text")]
)
def test_twenty_stops_and_resumes_on_other_ranks_change_nothing(
    opener: Callable[..., OpenMaker], source: str, kind: str
) -> None:
    """Each leg of the run has other ranks, workers, micro-batches and place of the corpus."""
    random = Random(f"{source} {kind}")
    local = opener(kind, source=source)
    state: LoaderState | None = None
    worlds: set[int] = set()
    batches: dict[int, Any] = {}
    for leg in range(21):
        world = random.choice([1, 2, 3, 4, 8])
        workers = random.choice([1, 3]) if leg % 5 == 4 else 0
        job = Job(world, workers, random.choice([1, 2, None]))
        place = "http" if leg % 6 == 3 else "folder"
        found, state = run(
            opener(kind, source=source, place=place), job, random.randint(1, 3), state
        )
        state = LoaderState.from_json(json.loads(json.dumps(state.to_json())))
        assert not batches.keys() & found.keys()
        batches.update(found)
        worlds.add(world)
    assert worlds == {1, 2, 3, 4, 8}
    assert list(batches) == list(range(len(batches)))
    with local() as maker:
        numbers = range(len(batches) * GLOBAL_BATCH)
        assert (state.windows, state.digest) == (
            len(numbers),
            digest_windows(maker.stream.ids(numbers)),
        )
        assert min(maker.stream.epochs(len(numbers)).values()) > 1
        for step in batches:
            assert_same(joined(batches[step]), expected_batch(maker, step))
    unbroken, whole = run(local, Job(), len(batches))
    assert whole == state
    for step in batches:
        assert_same(joined(unbroken[step]), joined(batches[step]))


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
def test_every_objective_sees_the_same_batches_on_any_ranks(
    opener: Callable[..., OpenMaker], kind: str
) -> None:
    open_one = opener(kind, source="mixture")
    whole, _ = run(open_one, Job(), 2)
    for job in (Job(2, 0, 3), Job(3, 0, 1), Job(8, 0, 6)):
        found, _ = run(open_one, job, 2)
        for step, batches in found.items():
            assert_same(joined(batches), joined(whole[step]))
            assert sum((batch.counts for batch in batches), Counts()) == whole[step][0].counts
            assert min(batch.key for batch in batches) == step * GLOBAL_BATCH


@pytest.mark.parametrize("world", [2, 4, 8])
def test_rows_depend_on_the_micro_batch_and_not_on_the_ranks(
    opener: Callable[..., OpenMaker], world: int
) -> None:
    open_one = opener("mlm", rows=Rows(length=50, count=5, open=4))
    whole, _ = run(open_one, Job(1, 0, 3), 2)
    found, _ = run(open_one, Job(world, 1, 3), 2)
    for step, batches in found.items():
        assert len(batches) == len(whole[step]) == GLOBAL_BATCH // 3
        for one, other in zip(batches, whole[step], strict=True):
            assert one.row_length == 50
            assert_same(joined([one]), joined([other]))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_each_rank_reads_lanes_of_its_own(opener: Callable[..., OpenMaker], world: int) -> None:
    with opener("text", lanes=8)() as maker:
        read = []
        for rank in range(world):
            loader = Loader(maker, global_batch_size=GLOBAL_BATCH, rank=rank, world=world)
            numbers = np.concatenate([loader.numbers(step) for step in range(5)])
            read.append(set(maker.stream.lanes(numbers).tolist()))
    assert read == [set(range(rank * 8 // world, (rank + 1) * 8 // world)) for rank in range(world)]


def test_each_remote_shard_is_fetched_by_one_rank_an_epoch(
    corpus_folder: Path, tmp_path: Path
) -> None:
    """But for the span in which the lanes of two ranks meet."""
    shards = {path.name for path in corpus_folder.glob("train-*.tar")}
    assert len(shards) == 5
    fetched = []
    with serve(corpus_folder) as server:
        for rank in range(2):
            reading = {"cache_dir": str(tmp_path / str(rank))}
            data = describe_data(server.url, lanes=2, shuffle_buffer_shards=1, reading=reading)
            corpus = open_corpora(data)
            stream = open_stream(corpus, "train", data, seed=0)
            loader = Loader(TextMaker(stream), global_batch_size=4, rank=rank, world=2)
            server.requests.clear()
            with closing(loader.iterate()) as steps:
                for step, _ in steps:
                    if step == stream.count // 4 - 1:
                        break
            corpus.close()
            fetched.append([name for name in server.requests if name in shards])
    for names in fetched:
        assert len(set(names)) == len(names)
    assert {*fetched[0], *fetched[1]} == shards
    # The span of the border, and the one that rank 0 fetched ahead behind it.
    assert len({*fetched[0]} & {*fetched[1]}) <= 2
