"""Fetching ahead: in the background, bounded, and never a reason to hang or to lose an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.manifest import FileInfo
from data_prep.shards import read_index
from megapt.config import ReadingConfig
from megapt.data.reading import Location, ShardStore
from megapt.data.reading.ahead import FetchAhead
from megapt.errors import DamagedError, UnavailableError
from tests.data.reading.server import Fault, FaultyServer
from tests.data.reading.test_sharing import Child
from tests.patience import patience, wait_for

NAMES = [f"train-00000{number}.tar" for number in range(5)]


def shards(server: FaultyServer) -> list[str]:
    return [name for name in server.requests if name.endswith(".tar")]


def test_shards_are_there_before_they_are_needed(
    server: FaultyServer, store_of: Callable[..., ShardStore], tmp_path: Path
) -> None:
    store = store_of(server.url)
    store.fetch_ahead([2, 3])
    wait_for(lambda: len(list((tmp_path / "cache").glob("*/*.tar"))) == 2)
    assert store.shard(2) is not None
    assert store.shard(3) is not None
    store.fetch_ahead([2, 3])
    assert sorted(shards(server)) == NAMES[2:4]


def test_reader_waits_for_what_is_on_its_way(
    server: FaultyServer, store_of: Callable[..., ShardStore]
) -> None:
    server.slow = 0.1
    store = store_of(server.url)
    store.fetch_ahead(range(5))
    assert all(store.shard(number) is not None for number in range(5))
    assert sorted(shards(server)) == NAMES


def test_asking_neither_blocks_nor_raises(
    server: FaultyServer, store_of: Callable[..., ShardStore]
) -> None:
    server.always[NAMES[1]] = Fault("stall", 10)
    store = store_of(server.url, timeout=1.5, max_retries=0)
    started = time.monotonic()
    store.fetch_ahead([1, 2])
    assert time.monotonic() - started < patience(0.3)
    with pytest.raises(UnavailableError, match=rf"{NAMES[1]}: .*\(tried once\)"):
        store.shard(1)


def test_error_waits_for_the_one_who_needs_the_shard(
    server: FaultyServer, store_of: Callable[..., ShardStore]
) -> None:
    server.always[NAMES[1]] = Fault("short", 512)
    store = store_of(server.url, max_retries=1)
    store.fetch_ahead([1])
    wait_for(lambda: len(shards(server)) == 2)
    time.sleep(0.1)
    with pytest.raises(DamagedError, match="512 bytes long"):
        store.shard(1)
    assert len(shards(server)) == 2
    server.always.clear()
    assert store.shard(1) is not None  # the error was told; now it is tried again


def test_never_more_than_the_cache_holds(
    server: FaultyServer, store_of: Callable[..., ShardStore], tmp_path: Path
) -> None:
    size = max((server.folder / name).stat().st_size for name in NAMES)
    store = store_of(server.url, cache_bytes=4.2 * size)
    store.fetch_ahead(range(5))
    wait_for(lambda: len(list((tmp_path / "cache").glob("*/*.tar"))) == 2)
    time.sleep(0.2)
    assert sorted(shards(server)) == NAMES[:2]


def test_closing_does_not_wait(server: FaultyServer, store_of: Callable[..., ShardStore]) -> None:
    server.always[NAMES[0]] = Fault("stall", 10)
    store = store_of(server.url, timeout=20.0)
    store.fetch_ahead([0])
    wait_for(lambda: NAMES[0] in server.requests)
    started = time.monotonic()
    store._location.close()
    assert time.monotonic() - started < patience(0.5)


def test_process_ends_while_something_is_on_its_way(
    server: FaultyServer, store_of: Callable[..., ShardStore]
) -> None:
    server.always[NAMES[0]] = Fault("stall", 10)
    store = store_of(server.url, timeout=30.0)
    child = Child(store.fetch_ahead, [0, 1])
    started = time.monotonic()
    child.result()
    child.process.join(patience(5))
    assert child.process.exitcode == 0
    assert time.monotonic() - started < patience(5)


def info(name: str) -> FileInfo:
    return FileInfo(file=name, bytes=10, sha256="")


class Slow:
    """Brings files one by one as they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Event()

    def __call__(self, info: FileInfo) -> Path:
        self.begun.append(info.file)
        assert self.go.wait(10)
        if info.file == "bad":
            raise DamagedError("bad file")
        return Path(info.file)


def test_a_new_wish_takes_the_place_of_the_old() -> None:
    slow = Slow()
    ahead = FetchAhead(slow, 100)
    ahead.request("train", [info("a"), info("b"), info("c")])
    wait_for(lambda: len(slow.begun) == 2)
    ahead.request("train", [info("d"), info("b")])
    assert ahead.take(info("c")) is None  # not begun, and no longer wanted
    slow.go.set()
    future = ahead.take(info("b"))
    assert future is not None
    assert future.result(5) == Path("b")
    wait_for(lambda: "d" in slow.begun)
    assert "c" not in slow.begun
    ahead.close()


def test_readers_do_not_take_each_others_place() -> None:
    slow = Slow()
    ahead = FetchAhead(slow, 55)
    ahead.request("train", [info("a"), info("b"), info("c"), info("d")])
    wait_for(lambda: len(slow.begun) == 2)
    ahead.request("valid", [info("e"), info("f"), info("g")])
    slow.go.set()
    wait_for(lambda: len(slow.begun) == 5)
    # As a whole no more than the budget: what was asked for last comes first.
    assert sorted(slow.begun) == ["a", "b", "e", "f", "g"]
    assert all(ahead.take(info(name)) is not None for name in "abefg")
    assert ahead.take(info("c")) is None
    ahead.close()


def test_evaluation_leaves_what_training_has_asked_for(
    server: FaultyServer,
    opened: Callable[..., Location],
    reading: Callable[..., ReadingConfig],
    tmp_path: Path,
) -> None:
    server.slow = 0.1
    location = opened(server.url)
    train, valid = (
        ShardStore(location, split, read_index(server.folder, split), reading())
        for split in location.manifest().splits.values()
    )
    train.fetch_ahead(range(5))
    valid.fetch_ahead([0])
    wait_for(lambda: len(list((tmp_path / "cache").glob("*/*.tar"))) == 6)
    assert sorted(shards(server)) == [*NAMES, "valid-000000.tar"]


def test_threads_stay_with_the_process_that_began_them() -> None:
    slow = Slow()
    slow.go.set()
    ahead = FetchAhead(slow, 100)
    ahead.request("train", [info("a"), info("bad")])
    wait_for(lambda: len(slow.begun) == 2)

    def in_child() -> tuple[bool, str]:
        nothing = ahead.take(info("a")) is None
        ahead.request("train", [info("e")])
        wait_for(lambda: "e" in slow.begun)
        future = ahead.take(info("e"))
        assert future is not None
        return nothing, str(future.result(5))

    assert Child(in_child).result() == (True, "e")
    future = ahead.take(info("bad"))
    assert future is not None
    with pytest.raises(DamagedError, match="bad file"):
        future.result(5)
    ahead.close()
