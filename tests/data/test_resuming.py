"""Where a loader starts, stops and refuses to go on."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from megapt.data import Loader, LoaderState
from megapt.errors import ConfigError
from tests.data.loading import (
    GLOBAL_BATCH,
    Job,
    assert_same,
    describe_data,
    joined,
    open_maker,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


@pytest.mark.parametrize(
    ("micro", "world"), [(5, 1), (GLOBAL_BATCH + 1, 1), (7, 2), (None, 5), (24, 4), (1, 96)]
)
def test_sizes_that_do_not_divide_are_refused(
    corpus_folder: Path, micro: int | None, world: int
) -> None:
    with (
        open_maker(describe_data(corpus_folder), "text") as maker,
        pytest.raises(
            ValueError, match=f"{GLOBAL_BATCH} windows is not divisible by {world} ranks"
        ),
    ):
        Loader(maker, global_batch_size=GLOBAL_BATCH, micro_batch_size=micro, world=world)


def begun_by(data: Any, **changes: Any) -> LoaderState:
    """The state of a run with these settings after one step, as a checkpoint holds it."""
    _, state = run(partial(open_maker, data, "text", **changes), Job(), 1)
    return LoaderState.from_json(json.loads(json.dumps(state.to_json())))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 33),
        ("window_policy", "whole"),
        ("lanes", 8),
        ("shuffle_buffer_shards", 1),
        ("shuffle_buffer_blocks", 2),
        ("seed", 6),
        ("split", "valid"),
    ],
)
def test_a_resume_in_another_order_is_refused_by_the_name_of_what_differs(
    corpus_folder: Path, name: str, value: Any
) -> None:
    state = begun_by(describe_data(corpus_folder))
    of_maker = {name: value} if name in ("seed", "split") else {}
    data = describe_data(corpus_folder, **({} if of_maker else {name: value}))
    with open_maker(data, "text", **of_maker) as maker:
        loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
        with pytest.raises(ConfigError) as error:
            loader.resume(state)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert f"{name} = {state.order[name]}, not {value}" in text


def test_a_resume_on_another_corpus_is_refused(corpus_folder: Path, small_folder: Path) -> None:
    state = begun_by(describe_data(corpus_folder))
    for where in ((small_folder,), (corpus_folder, small_folder)):
        with open_maker(describe_data(*where), "text") as maker:
            loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
            with pytest.raises(ConfigError, match="read data with fingerprint = "):
                loader.resume(state)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": []},
        {"schedule": [{"step": 8, "weights": {"small": 4.5}}]},
        {"temperature": 1.0, "schedule": [{"step": 7, "weights": {"small": 4.25}}]},
    ],
)
def test_a_resume_with_other_weights_is_refused(
    corpus_folder: Path, small_folder: Path, change: dict[str, Any]
) -> None:
    usual = describe_data(corpus_folder, small_folder)
    state = begun_by(usual)
    assert usual.mixture is not None
    mixture = {**usual.mixture.model_dump(), **change}
    with open_maker(describe_data(corpus_folder, small_folder, mixture=mixture), "text") as maker:
        loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
        with pytest.raises(ConfigError, match="read data with mixture = "):
            loader.resume(state)


def test_a_resume_within_a_global_batch_is_refused(corpus_folder: Path) -> None:
    with open_maker(describe_data(corpus_folder), "text") as maker:
        state = LoaderState(maker.stream.identity, 3 * GLOBAL_BATCH)
        loader = Loader(maker, global_batch_size=2 * GLOBAL_BATCH)
        with pytest.raises(ConfigError, match=f"{3 * GLOBAL_BATCH} windows are not a whole number"):
            loader.resume(state)
        Loader(maker, global_batch_size=3 * GLOBAL_BATCH).resume(state)


def test_a_resume_with_another_global_batch_goes_on_with_the_same_windows(
    corpus_folder: Path,
) -> None:
    open_one = partial(open_maker, describe_data(corpus_folder), "text")
    _, whole = run(open_one, Job(), 4)
    _, half = run(open_one, Job(), 2)
    with open_one() as maker:
        loader = Loader(maker, global_batch_size=2 * GLOBAL_BATCH)
        loader.resume(half)
        ((step, _),) = islice(loader.iterate(), 1)
        assert step == 1
        assert loader.state() == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_iteration_goes_on_where_the_first_was_stopped(
    corpus_folder: Path, workers: int
) -> None:
    open_one = partial(open_maker, describe_data(corpus_folder), "text")
    whole, state = run(open_one, Job(), 5)
    with open_one() as maker:
        loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
        read = []
        for steps in (2, 3):
            with closing(loader.iterate(workers)) as iterator:
                read += list(islice(iterator, steps))
        assert [step for step, _ in read] == list(range(5))
        for step, batches in read:
            assert_same(joined(batches), joined(whole[step]))
        assert loader.state() == state


def test_a_loader_that_has_read_on_can_be_set_back(corpus_folder: Path) -> None:
    open_one = partial(open_maker, describe_data(corpus_folder), "text")
    _, early = run(open_one, Job(), 2)
    _, late = run(open_one, Job(), 5)
    with open_one() as maker:
        loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
        list(islice(loader.iterate(), 4))
        loader.resume(early)
        assert loader.state() == early
        assert [step for step, _ in islice(loader.iterate(), 3)] == [2, 3, 4]
        assert loader.state() == late


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_iteration_ends_with_the_last_whole_batch_of_a_capped_mixture(
    corpus_folder: Path, small_folder: Path, workers: int
) -> None:
    corpora = {
        "large": {"path": str(corpus_folder), "weight": 1.0, "max_epochs": 0.5},
        "small": {"path": str(small_folder), "weight": 1.0, "max_epochs": 1.0},
    }
    data = describe_data(corpus_folder, small_folder, mixture={"corpora": corpora})
    with open_maker(data, "text") as maker:
        total = maker.stream.total
        assert total is not None
        loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
        steps = [step for step, _ in loader.iterate(workers)]
        assert steps == list(range(total // GLOBAL_BATCH))
        assert total % GLOBAL_BATCH
        state = loader.state()
        assert state.windows == len(steps) * GLOBAL_BATCH
        assert list(loader.iterate(workers)) == []
        again = Loader(maker, global_batch_size=GLOBAL_BATCH)
        again.resume(state)
        assert list(again.iterate(workers)) == []
        assert again.state() == state
