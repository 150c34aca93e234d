"""Several processes over one cache: forked, waiting for each other, killed, hanging."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from data_prep.manifest import FileInfo
from megapt.config import ReadingConfig
from megapt.data.reading import Location, ShardStore, open_location
from megapt.data.reading.locks import holding
from tests.data.reading.server import Fault, FaultyServer
from tests.patience import patience, wait_for

fork = multiprocessing.get_context("fork")


def _answer(answers: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answers.send((function(*args), ""))
    except BaseException:
        answers.send((None, traceback.format_exc()))


class Child:
    """A function in a forked process."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._answers, theirs = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_answer, args=(theirs, function, args), daemon=True)
        self.process.start()

    def result(self) -> Any:
        assert self._answers.poll(20), "the child hangs"
        value, failure = self._answers.recv()
        self.process.join(patience(5))
        assert not failure, failure
        return value


def read_all(store: ShardStore, numbers: list[int]) -> dict[int, bytes]:
    """The first block's tokens of some shards."""
    found = {}
    for number in numbers:
        shard = store.shard(number)
        assert shard is not None
        found[number] = shard.block(0).tokens.tobytes()
    return found


@pytest.mark.parametrize("parent_reads", [False, True])
def test_forked_workers_fetch_after_their_parent_did(
    server: FaultyServer, store_of: Callable[..., ShardStore], source: Path, parent_reads: bool
) -> None:
    store = store_of(server.url)  # has fetched the manifest over HTTP
    if parent_reads:
        store.fetch_ahead([0, 1])
        read_all(store, [0])
    numbers = list(range(5))
    children = [Child(read_all, store, numbers) for _ in range(3)]
    expected = read_all(store_of(source), numbers)
    assert [child.result() for child in children] == [expected] * 3
    assert read_all(store, numbers) == expected
    assert sorted(server.requests) == ["manifest.json", *(f"train-00000{n}.tar" for n in numbers)]


def fetch_file(url: str, reading: ReadingConfig, number: int) -> bytes:
    location = open_location(url, reading)
    info = location.manifest().splits["train"].shards[number]
    return location.path(info).read_bytes()


def test_four_processes_that_ask_at_once_cause_one_transfer(
    server: FaultyServer, reading: Callable[..., ReadingConfig]
) -> None:
    server.slow = 0.2
    children = [Child(fetch_file, server.url, reading(), 1) for _ in range(4)]
    expected = (server.folder / "train-000001.tar").read_bytes()
    assert [child.result() for child in children] == [expected] * 4
    assert server.requests.count("train-000001.tar") == 1


def hashings(location: Location, files: int) -> int:
    """How many of the first files this process had to hash."""
    import megapt.data.reading.location as module

    counted: list[Path] = []
    original = module.check_sum

    def counting(path: Path, info: FileInfo) -> None:
        counted.append(path)
        original(path, info)

    module.check_sum = counting
    for info in location.manifest().splits["train"].shards[:files]:
        location.path(info)
    return len(counted)


@pytest.mark.parametrize("remote", [True, False])
def test_workers_hash_for_each_other(
    server: FaultyServer, opened: Callable[..., Location], remote: bool
) -> None:
    where = server.url if remote else server.folder
    earlier = opened(where)
    for info in earlier.manifest().splits["train"].shards[:4]:
        earlier.path(info)
    location = opened(where, verify="use")
    location.manifest()
    assert [Child(hashings, location, 4).result() for _ in range(3)] == [4, 0, 0]
    assert Child(hashings, location, 5).result() == (0 if remote else 1)


def test_process_that_is_killed_while_it_fetches(
    server: FaultyServer, reading: Callable[..., ReadingConfig], tmp_path: Path
) -> None:
    server.faults["train-000001.tar"].append(Fault("stall", 700))
    dying = Child(fetch_file, server.url, reading(timeout=30.0), 1)
    wait_for(lambda: "train-000001.tar" in server.requests)
    waiting = Child(fetch_file, server.url, reading(timeout=30.0), 1)
    time.sleep(0.1)
    assert dying.process.pid is not None
    os.kill(dying.process.pid, signal.SIGKILL)
    assert waiting.result() == (server.folder / "train-000001.tar").read_bytes()
    assert server.requests.count("train-000001.tar") == 2
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == ["train-000001.tar"]


def test_process_that_hangs_while_it_fetches(
    server: FaultyServer, reading: Callable[..., ReadingConfig], tmp_path: Path
) -> None:
    server.slow = 0.5
    quick = reading(timeout=1.0, max_retries=0)
    hanging = Child(fetch_file, server.url, quick, 1)
    wait_for(lambda: "train-000001.tar" in server.requests)
    assert hanging.process.pid is not None
    os.kill(hanging.process.pid, signal.SIGSTOP)
    try:
        expected = (server.folder / "train-000001.tar").read_bytes()
        assert Child(fetch_file, server.url, quick, 1).result() == expected
    finally:
        os.kill(hanging.process.pid, signal.SIGCONT)
    hanging.process.join(patience(10))
    path = next((tmp_path / "cache").glob("*/train-000001.tar"))
    assert path.read_bytes() == expected


def test_processes_share_a_small_cache(
    server: FaultyServer, store_of: Callable[..., ShardStore], source: Path, tmp_path: Path
) -> None:
    numbers = list(range(5))
    limit = 2.2 * max((source / f"train-00000{number}.tar").stat().st_size for number in numbers)
    store = store_of(server.url, cache_bytes=limit)
    children = [Child(read_all, store, numbers[k:] + numbers[:k]) for k in (0, 2, 4)]
    expected = read_all(store_of(source), numbers)
    assert [child.result() for child in children] == [expected] * 3
    kept = list((tmp_path / "cache").glob("*/*"))
    assert {path.suffix for path in kept} == {".tar"}
    assert sum(path.stat().st_size for path in kept) <= limit


def test_lock_is_exclusive_and_leaves_nothing(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(10):
            with holding(tmp_path / "lock", 10):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_lock_is_kept_as_long_as_there_is_progress(tmp_path: Path) -> None:
    events = []

    def hold() -> None:
        with holding(tmp_path / "lock", 0.3) as progress:
            events.append("held")
            for _ in range(12):
                time.sleep(0.1)
                progress()
            events.append("done")

    thread = threading.Thread(target=hold)
    thread.start()
    wait_for(lambda: events == ["held"])
    with holding(tmp_path / "lock", 0.3):
        events.append("next")
    thread.join(5)
    assert events == ["held", "done", "next"]
