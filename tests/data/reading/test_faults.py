"""Every fault of a transfer or of a file is met: overcome if it passes, named if it stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest import Manifest
from data_prep.shards import TAR_HEADER_BYTES
from megapt.data.reading import Location, ShardStore
from megapt.errors import DamagedError, MegaptError, UnavailableError
from tests.data.reading.server import Fault, FaultyServer
from tests.patience import patience

SHARD = "train-000001.tar"
DAMAGED, AWAY = DamagedError, UnavailableError
PASSING = [
    Fault("status", 500),
    Fault("status", 404),
    Fault("stall", 0),
    Fault("stall", 700),
    Fault("cut", -1),
    Fault("cut", 0),
    Fault("cut", 700),
    Fault("short", 0),
    Fault("short", 512),
    Fault("long", 1),
    Fault("flip", 3000),
]


def quick(fault: Fault) -> dict[str, float]:
    return {"timeout": 0.3} if fault.kind == "stall" else {}


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_passing_fault_of_a_shard_loses_nothing(
    server: FaultyServer,
    store_of: Callable[..., ShardStore],
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.faults[SHARD].extend([fault, fault])
    store = store_of(server.url, **quick(fault))
    shard = store.shard(1)
    assert shard is not None
    assert shard.path.read_bytes() == (server.folder / SHARD).read_bytes()
    assert server.requests.count(SHARD) == 3
    # The HTTP client itself asks once more where a connection that was kept brought no answer.
    assert len(caplog.messages) == (1 if fault == Fault("cut", -1) else 2)
    assert all(f"{server.url}/{SHARD}" in message for message in caplog.messages)
    assert "trying again in" in caplog.messages[0]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_passing_fault_of_the_manifest(
    server: FaultyServer, opened: Callable[..., Location], fault: Fault
) -> None:
    server.faults["manifest.json"].append(fault)
    location = opened(server.url, **quick(fault))
    assert location.manifest() == Manifest.load(server.folder)
    assert server.requests == ["manifest.json"] * 2
    location.manifest()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "found"),
    [
        (Fault("status", 500), AWAY, r"cannot be read \(ClientResponseError: 500"),
        (Fault("status", 429), AWAY, r"cannot be read \(ClientResponseError: 429"),
        (Fault("status", 403), DAMAGED, r"cannot be read \(ClientResponseError: 403"),
        (Fault("status", 404), DAMAGED, "no such file"),
        (Fault("stall", 700), AWAY, "no byte for 0.3 s|SocketTimeoutError|TimeoutError"),
        (Fault("cut", -1), AWAY, r"cannot be read \(ServerDisconnectedError"),
        (Fault("cut", 700), AWAY, r"cannot be read \(ClientPayloadError"),
        (Fault("short", 512), DAMAGED, r"512 bytes long, the manifest says \d+"),
        (Fault("long", 1), DAMAGED, r"more than (\d+) bytes long, the manifest says \1 "),
        (Fault("flip", 3000), DAMAGED, r"sha256 is [0-9a-f]{64}, the manifest says [0-9a-f]{64}"),
    ],
    ids=str,
)
def test_fault_that_stays_stops_or_is_skipped(
    server: FaultyServer,
    store_of: Callable[..., ShardStore],
    fault: Fault,
    kind: type[MegaptError],
    found: str,
) -> None:
    server.always[SHARD] = fault
    options = {**quick(fault), "max_retries": 1}
    started = time.monotonic()
    with pytest.raises(kind, match=found) as caught:
        store_of(server.url, **options).shard(1)
    assert str(caught.value).startswith(f"{server.url}/{SHARD}: ")
    assert "tried 2 times" in str(caught.value)
    assert "data.reading.on_damage" in str(caught.value)
    assert "\n" not in str(caught.value)
    store = store_of(server.url, **options, on_damage="skip")
    assert store.shard(1) is None
    assert store.skipped.keys() == {1}
    assert SHARD in store.skipped[1]
    asked = len(server.requests)
    assert store.shard(1) is None
    assert len(server.requests) == asked
    assert store.shard(0) is not None
    assert time.monotonic() - started < patience(10)


def test_vanished_shard(server: FaultyServer, store_of: Callable[..., ShardStore]) -> None:
    (server.folder / SHARD).unlink()
    with pytest.raises(DamagedError, match=f"{SHARD}: no such file"):
        store_of(server.url).shard(1)
    store = store_of(server.url, on_damage="skip")
    assert [store.shard(number) is None for number in range(3)] == [False, True, False]


def test_store_that_is_away_as_a_whole_is_never_skipped(
    server: FaultyServer, store_of: Callable[..., ShardStore]
) -> None:
    store = store_of(server.url, on_damage="skip", max_retries=1)
    for path in server.folder.iterdir():
        path.unlink()
    with pytest.raises(UnavailableError, match="does not answer, so nothing is skipped"):
        store.shard(1)
    assert not store.skipped


@pytest.mark.parametrize("remote", [True, False])
def test_what_is_gone_with_all_the_rest_is_no_damage(
    server: FaultyServer, store_of: Callable[..., ShardStore], remote: bool
) -> None:
    store = store_of(server.url if remote else server.folder, max_retries=1)
    server.folder.rename(server.folder.with_name("elsewhere"))
    with pytest.raises(UnavailableError, match=r"no such file.* does not answer$"):
        store.shard(1)


def test_folder_that_is_away_as_a_whole_is_never_skipped(
    source: Path, store_of: Callable[..., ShardStore]
) -> None:
    store = store_of(source, on_damage="skip")
    source.rename(source.with_name("elsewhere"))
    with pytest.raises(UnavailableError, match="does not answer, so nothing is skipped"):
        store.shard(1)


def cut_at_member_edge(data: bytearray, second_block: int) -> bytearray:
    return data[:second_block] + bytes(2 * TAR_HEADER_BYTES)


def flip_header_bit(data: bytearray, second_block: int) -> bytearray:
    data[second_block + 3] ^= 4
    return data


def zero_page(data: bytearray, second_block: int) -> bytearray:
    data[4096:8192] = bytes(4096)
    return data


def flip_payload_bit(data: bytearray, second_block: int) -> bytearray:
    data[second_block + TAR_HEADER_BYTES + 200] ^= 1
    return data


DAMAGES = [cut_at_member_edge, flip_header_bit, zero_page, flip_payload_bit]


def damage_shard(folder: Path, damage: Callable[[bytearray, int], bytearray]) -> None:
    split = Manifest.load(folder).splits["train"]
    index = np.load(folder / split.index.file)
    second_block = int(index[split.shards[0].blocks + 1, 0])
    path = folder / SHARD
    before = path.read_bytes()
    path.write_bytes(damage(bytearray(before), second_block))
    assert path.read_bytes() != before


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_on_a_local_disk(
    source: Path, store_of: Callable[..., ShardStore], damage: Callable[..., bytearray]
) -> None:
    damage_shard(source, damage)
    with pytest.raises(DamagedError, match=rf"{SHARD}: (sha256 is|\d+ bytes long)") as caught:
        store_of(source, verify="use").shard(1)
    assert str(caught.value).startswith(f"{source}/{SHARD}")
    store = store_of(source, verify="use", on_damage="skip")
    assert store.shard(1) is None
    assert "the manifest says" in store.skipped[1]
    assert store.shard(2) is not None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_where_the_corpus_is_served(
    server: FaultyServer, store_of: Callable[..., ShardStore], damage: Callable[..., bytearray]
) -> None:
    damage_shard(server.folder, damage)
    with pytest.raises(DamagedError, match=f"{SHARD}: .* the manifest says"):
        store_of(server.url, max_retries=1).shard(1)
    assert store_of(server.url, max_retries=1, on_damage="skip").shard(1) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_in_the_cache_is_repaired(
    server: FaultyServer,
    store_of: Callable[..., ShardStore],
    damage: Callable[..., bytearray],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sound = (server.folder / SHARD).read_bytes()
    first = store_of(server.url).shard(1)
    assert first is not None
    for name in ("manifest.json", "train.index.npy"):
        (first.path.parent / name).write_bytes((server.folder / name).read_bytes())
    # A new file under the name: the old one is mapped.
    copied = first.path.read_bytes()
    first.path.unlink()
    first.path.write_bytes(copied)
    damage_shard(first.path.parent, damage)
    again = store_of(server.url).shard(1)
    assert again is not None
    assert again.path.read_bytes() == sound
    assert server.requests.count(SHARD) == 2
    assert [message for message in caplog.messages if "fetching it again" in message] == [
        caplog.messages[-1]
    ]
    assert "build the corpus again" not in caplog.messages[-1]


def test_sizes_alone_are_compared_when_asked(
    source: Path, store_of: Callable[..., ShardStore]
) -> None:
    damage_shard(source, flip_payload_bit)
    assert store_of(source, verify="size").shard(1) is not None
    (source / SHARD).write_bytes((source / SHARD).read_bytes()[:-512])
    with pytest.raises(DamagedError, match="bytes long, the manifest says"):
        store_of(source, verify="size").shard(1)


def test_manifest_cannot_lead_out_of_its_folder(
    server: FaultyServer, opened: Callable[..., Location]
) -> None:
    location = opened(server.url)
    info = replace(location.manifest().tokenizer, file="../../out")
    with pytest.raises(DamagedError, match="not a file name"):
        location.path(info)
