"""What a process is short of is no damage of a file: nothing is skipped, removed or tried again."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from megapt.data.reading import ShardStore
from megapt.data.reading.transport import prepare, receive
from megapt.errors import ConfigError
from tests.data.reading.server import FaultyServer
from tests.data.reading.test_sharing import Child

TOO_MANY = "Too many open files; the file may be intact: raise `ulimit -n` or lower data.lanes"


def without_files(call: Callable[[], object]) -> str:
    """The error of a call in a process that can open no file: of a wrong setting."""

    def work() -> str:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
        with pytest.raises(ConfigError) as caught:
            call()
        return str(caught.value)

    text: str = Child(work).result()
    return text


@pytest.mark.parametrize("verify", ["use", "size"])
def test_no_file_handles_for_a_local_shard(
    source: Path, store_of: Callable[..., ShardStore], verify: str
) -> None:
    store = store_of(source, verify=verify, on_damage="skip")
    path = source / "train-000001.tar"
    assert without_files(lambda: store.shard(1)) == f"{path}: {TOO_MANY}"
    assert without_files(lambda: store.verify(1)) == f"{path}: {TOO_MANY}"


@pytest.mark.parametrize("cached", [True, False])
def test_no_file_handles_for_a_fetched_shard(
    server: FaultyServer,
    store_of: Callable[..., ShardStore],
    tmp_path: Path,
    cached: bool,
) -> None:
    if cached:
        store_of(server.url).shard(1)
    asked = len(server.requests)
    store = store_of(server.url, on_damage="skip")
    fingerprint = store._location.manifest().fingerprint
    path = tmp_path / "cache" / fingerprint[:16] / "train-000001.tar"
    assert without_files(lambda: store.shard(1)) == f"{path}: {TOO_MANY}"
    assert path.exists() == cached
    assert len(server.requests) == asked + 1  # for the manifest
    assert store.shard(1) is not None


@pytest.mark.parametrize("transport", ["http", "pipe"])
def test_no_file_handles_for_a_transfer(server: FaultyServer, source: Path, transport: str) -> None:
    name = "train-000001.tar"
    url = f"{server.url}/{name}" if transport == "http" else f"pipe:cat {source}/{name}"
    prepare(url)
    assert without_files(lambda: [*receive(url, 3.0)]) == f"{url}: {TOO_MANY}"


def test_no_memory_for_a_map(
    source: Path, store_of: Callable[..., ShardStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(source, on_damage="skip")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("data_prep.shards.mmap.mmap", refuse)
    with pytest.raises(ConfigError, match=r"1\.tar: Cannot allocate memory; .*lower data\.shuffle"):
        store.shard(1)
    assert store.skipped == {}
    monkeypatch.undo()
    assert store.shard(1) is not None
