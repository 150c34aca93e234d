"""A copy of the corpus that tests may damage, servers over it, and a limit on the time of each."""

from __future__ import annotations

import faulthandler
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_prep.shards import read_index
from megapt.config import ReadingConfig
from megapt.data.reading import Location, ShardStore, open_location
from tests.data.reading.server import FaultyServer, serve

_LIMIT = 300.0
"""Seconds after which a test that hangs ends the whole run, with the traces of all threads."""


@pytest.fixture(autouse=True)
def _never_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(_LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def source(corpus_folder: Path, tmp_path: Path) -> Path:
    """A folder with the corpus."""
    return shutil.copytree(corpus_folder, tmp_path / "source")


@pytest.fixture
def server(source: Path) -> Iterator[FaultyServer]:
    with serve(source) as faulty:
        yield faulty


@pytest.fixture
def reading(tmp_path: Path) -> Callable[..., ReadingConfig]:
    """Settings with a cache of the test's own, which give up soon."""

    def make(**changes: object) -> ReadingConfig:
        usual = {
            "cache_dir": str(tmp_path / "cache"),
            "max_retries": 3,
            "backoff": 0.01,
            "timeout": 3.0,
        }
        return ReadingConfig.model_validate({**usual, **changes})

    return make


@pytest.fixture
def opened(reading: Callable[..., ReadingConfig]) -> Iterator[Callable[..., Location]]:
    """Open a location; it is closed after the test."""
    locations = []

    def open_(where: str | Path, **changes: object) -> Location:
        locations.append(open_location(str(where), reading(**changes)))
        return locations[-1]

    yield open_
    for location in locations:
        location.close()


@pytest.fixture
def store_of(
    opened: Callable[..., Location], reading: Callable[..., ReadingConfig], corpus_folder: Path
) -> Callable[..., ShardStore]:
    """The training shards of a location."""

    def make(where: str | Path, **changes: object) -> ShardStore:
        location = opened(where, **changes)
        split = location.manifest().splits["train"]
        return ShardStore(location, split, read_index(corpus_folder, split), reading(**changes))

    return make
