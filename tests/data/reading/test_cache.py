"""The cache: bounded, shared, and never wrong about a file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import megapt.data.reading.cache
from data_prep.manifest import FileInfo, Manifest
from data_prep.shards import check_size
from megapt.config import ReadingConfig
from megapt.data.reading import Location, ShardStore
from megapt.data.reading.hashed import HashedFiles
from megapt.data.reading.retries import longest_pause, pause_before
from megapt.errors import ConfigError, DamagedError, UnavailableError
from tests.data.reading.server import Fault, FaultyServer


def shard_bytes(folder: Path) -> list[int]:
    return [info.bytes for info in Manifest.load(folder).splits["train"].shards]


def cached(root: Path) -> int:
    """Bytes of all shards in a cache, complete or not."""
    return sum(path.stat().st_size for path in root.glob("*/*.tar*"))


def test_bound_holds_while_everything_is_read_in_a_loop(
    server: FaultyServer,
    store_of: Callable[..., ShardStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("megapt.data.reading.store._OPEN_SHARDS", 1)
    sizes = shard_bytes(server.folder)
    limit = 2.5 * max(sizes)
    assert sum(sizes) > 1.5 * limit
    store = store_of(server.url, cache_bytes=limit)
    for _ in range(2):
        for number in range(len(sizes)):
            shard = store.shard(number)
            assert shard is not None
            assert shard.path.exists()
            assert cached(tmp_path / "cache") <= limit
    # What is removed while somebody holds it is still mapped.
    held = store.shard(0)
    assert held is not None
    for number in range(1, len(sizes)):
        store.shard(number)
    assert not held.path.exists()
    sound = (server.folder / held.path.name).read_bytes()
    block = held.block(len(held) - 1)
    assert block.tokens.tobytes() in sound
    assert store.shard(0) is held


def test_least_recently_used_goes_first_whichever_corpus_it_is_of(
    server: FaultyServer, opened: Callable[..., Location], tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "0123456789abcdef"
    other = tmp_path / "cache" / "my-corpus"
    sizes = shard_bytes(server.folder)
    for place in (folder, other):
        place.mkdir(parents=True)
        for name in ("train-000007.tar", "train.index.npy"):
            (place / name).write_bytes(bytes(sizes[0]))
    os.utime(folder / "train-000007.tar", (1, 1))
    location = opened(server.url, cache_bytes=sum(sizes[:3]) + 10)
    infos = location.manifest().splits["train"].shards
    paths = [location.path(info) for info in infos[:3]]
    assert not (folder / "train-000007.tar").exists()
    assert (folder / "train.index.npy").exists()
    assert len([*other.iterdir()]) == 2  # not of this cache, whatever it looks like
    time.sleep(0.01)
    location.path(infos[0])
    location.path(infos[3])
    assert [path.exists() for path in paths] == [True, False, sizes[3] <= sizes[1] + 10]


def test_cache_smaller_than_a_shard(
    server: FaultyServer, store_of: Callable[..., ShardStore], tmp_path: Path
) -> None:
    store = store_of(server.url, cache_bytes=100, on_damage="skip")
    with pytest.raises(ConfigError, match=r"may hold 100; raise data\.reading\.cache_bytes"):
        store.shard(0)
    assert store.skipped == {}
    assert cached(tmp_path / "cache") == 0


def test_file_of_the_cache_is_fetched_once_and_hashed_once(
    server: FaultyServer, opened: Callable[..., Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def count(path: Path, _: object) -> None:
        hashed.append(path)

    monkeypatch.setattr("megapt.data.reading.location.check_sum", count)
    first, second = opened(server.url), opened(server.url)
    info = first.manifest().splits["train"].shards[0]
    for location, hashings in ((first, 0), (first, 0), (second, 1), (second, 1)):
        location.path(info)
        assert len(hashed) == hashings
    assert server.requests.count(info.file) == 1


def test_leavings_of_dead_processes_are_removed(
    server: FaultyServer, opened: Callable[..., Location], tmp_path: Path
) -> None:
    location = opened(server.url)
    manifest = location.manifest()
    folder = tmp_path / "cache" / manifest.fingerprint[:16]
    folder.mkdir(parents=True)
    partial = folder / "train-000005.tar.0123.partial"
    partial.write_bytes(bytes(10**6))
    (folder / "train-000000.tar.lock").write_bytes(b"")
    path = location.path(manifest.splits["train"].shards[0])
    assert not partial.exists()
    assert [entry.name for entry in folder.iterdir()] == [path.name]


class FullDisk:
    """Stands for the disk: writing fails while the cache holds more than `room` bytes."""

    def __init__(self, root: Path, room: int, number: int = errno.ENOSPC) -> None:
        self.root, self.room, self.number = root, room, number

    def fsync(self, handle: int) -> None:
        if cached(self.root) > self.room:
            raise OSError(self.number, os.strerror(self.number))


def test_full_disk_is_answered_by_removing_shards(
    server: FaultyServer,
    opened: Callable[..., Location],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    sizes = shard_bytes(server.folder)
    root = tmp_path / "cache"
    disk = FullDisk(root, sum(sizes[:2]))
    monkeypatch.setattr(megapt.data.reading.cache.os, "fsync", disk.fsync)
    location = opened(server.url)
    infos = location.manifest().splits["train"].shards
    for info in infos:
        assert location.path(info).read_bytes() == (server.folder / info.file).read_bytes()
    assert not location._bring(infos[0]).with_name(infos[1].file).exists()
    disk.room = 0
    with pytest.raises(
        UnavailableError, match=r"No space left on device\); free space, or set data\.r"
    ):
        location.path(infos[1])
    assert cached(root) == 0


def test_cache_that_cannot_be_written(
    server: FaultyServer, store_of: Callable[..., ShardStore], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    store = store_of(server.url, cache_dir=str(tmp_path / "file"), on_damage="skip")
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\)"):
        store.shard(0)


def test_shard_that_is_removed_before_it_is_opened(
    server: FaultyServer, store_of: Callable[..., ShardStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(server.url)
    bring, left = store._location.path, [3]

    def remove(info: object) -> Path:
        path = bring(info)  # type: ignore[arg-type]
        if left[0]:
            left[0] -= 1
            path.unlink()
        return path

    monkeypatch.setattr(store._location, "path", remove)
    shard = store.shard(0)
    assert shard is not None
    assert server.requests.count("train-000000.tar") == 4
    left[0] = 100
    with pytest.raises(ConfigError, match="removed from the cache 10 times"):
        store.shard(1)


def test_open_shards_are_bounded(
    source: Path, store_of: Callable[..., ShardStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megapt.data.reading.store._OPEN_SHARDS", 2)
    store = store_of(source)
    handles = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for number in range(len(shard_bytes(source))):
            assert store.shard(number) is not None
    assert len(os.listdir("/proc/self/fd")) <= handles + 2
    assert store.shard(0) is store.shard(0)


def test_open_shards_are_bounded_over_all_stores(
    source: Path, store_of: Callable[..., ShardStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megapt.data.reading.store._OPEN_SHARDS", 2)
    stores = [store_of(source) for _ in range(4)]
    handles = len(os.listdir("/proc/self/fd"))
    for number in range(len(shard_bytes(source))):
        assert all(store.shard(number) is not None for store in stores)
    assert len(os.listdir("/proc/self/fd")) <= handles + 2


def test_shard_that_is_held_is_not_mapped_twice(
    source: Path, store_of: Callable[..., ShardStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megapt.data.reading.store._OPEN_SHARDS", 1)
    store = store_of(source)
    held = [store.shard(number) for number in range(4)]
    assert all(store.shard(number) is shard for number, shard in enumerate(held))


def test_shards_removed_from_the_cache_leave_the_disk(
    server: FaultyServer, store_of: Callable[..., ShardStore], tmp_path: Path
) -> None:
    sizes = shard_bytes(server.folder)
    store = store_of(server.url, cache_bytes=1.1 * max(sizes))
    for number in range(len(sizes)):
        assert store.shard(number) is not None
        maps = Path("/proc/self/maps").read_text().splitlines()
        ours = [line for line in maps if str(tmp_path / "cache") in line]
        assert len(ours) == 1
        assert not ours[0].endswith("(deleted)")


def test_file_that_another_process_finishes_meanwhile_is_kept(
    server: FaultyServer, opened: Callable[..., Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opened(server.url), opened(server.url)
    info = first.manifest().splits["train"].shards[0]
    second.manifest()
    found: list[int] = []

    def finish_after(path: Path, wanted: FileInfo) -> None:
        monkeypatch.setattr("megapt.data.reading.location.check_size", check_size)
        try:
            check_size(path, wanted)
        finally:  # it was missing when it was looked for
            found.append(second.path(info).stat().st_ino)

    monkeypatch.setattr("megapt.data.reading.location.check_size", finish_after)
    assert [first.path(info).stat().st_ino] == found
    assert server.requests.count(info.file) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM])
def test_full_cache_that_cannot_be_written_is_used(
    server: FaultyServer,
    opened: Callable[..., Location],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    location = opened(server.url)
    infos = location.manifest().splits["train"].shards
    location.path(infos[0])

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("utime", "open", "mkdir", "unlink"):
        monkeypatch.setattr(megapt.data.reading.cache.os, name, refuse)
    reader = opened(server.url)
    path = reader.path(infos[0])
    assert path.read_bytes() == (server.folder / infos[0].file).read_bytes()
    with pytest.raises(ConfigError, match="make the cache writable"):
        reader.path(infos[1])
    assert server.requests.count(infos[0].file) == 1


def test_shards_that_a_resumed_run_had_left_out(
    server: FaultyServer, store_of: Callable[..., ShardStore]
) -> None:
    store = store_of(server.url)
    assert store.shard(0) is not None
    store.skip({0: "was damaged", 2: "was missing"})
    assert [store.shard(number) is None for number in range(4)] == [True, False, True, False]
    assert store.skipped == {0: "was damaged", 2: "was missing"}
    assert "train-000002.tar" not in server.requests


@given(st.integers(0, 200), st.floats(0.001, 100), st.text(max_size=20))
def test_pauses_double_up_to_thirty_seconds(retry: int, backoff: float, file: str) -> None:
    reading = ReadingConfig(backoff=backoff, max_retries=retry)
    whole = min(30.0, backoff * 2**retry)
    pause = pause_before(retry, file, reading)
    assert whole / 2 <= pause <= whole <= longest_pause(reading)
    assert pause == pause_before(retry, file, reading)


@given(st.sets(st.text(max_size=5), max_size=20), st.data())
def test_hashed_files_are_a_set(files: set[str], data: st.DataObject) -> None:
    hashed = HashedFiles(files)
    chosen = data.draw(st.sets(st.sampled_from(sorted(files)))) if files else set()
    for file in [*chosen, "not of the corpus"]:
        hashed.add(file)
    assert {file for file in files if file in hashed} == chosen
    assert "not of the corpus" not in hashed


def test_corpus_that_is_served_with_another_content_is_refused(
    server: FaultyServer, opened: Callable[..., Location]
) -> None:
    server.always["manifest.json"] = Fault("flip", 40)
    with pytest.raises(DamagedError, match=r"manifest\.json: .*\(tried 2 times\)") as caught:
        opened(server.url, max_retries=1).manifest()
    assert str(caught.value).count("build the corpus again") == 1
