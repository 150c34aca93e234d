"""The same bytes through every transport."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from data_prep.manifest import Manifest
from megapt.data.reading import Location, ShardStore, open_location
from megapt.data.reading.location import LocalFolder
from megapt.errors import ConfigError, UnavailableError
from tests.data.reading.server import FaultyServer
from tests.data.reading.test_sharing import Child
from tests.patience import patience


def files_of(location: Location) -> dict[str, bytes]:
    """The content of every file of a corpus."""
    manifest = location.manifest()
    infos = [manifest.tokenizer]
    for split in manifest.splits.values():
        infos += [split.index, split.lengths, *split.shards]
    return {info.file: location.path(info).read_bytes() for info in infos}


def expected(folder: Path) -> dict[str, bytes]:
    names = Manifest.load(folder).files - {"manifest.json"}
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def memory(source: Path) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for path in source.iterdir():
        system.pipe(f"/bucket/corpus/{path.name}", path.read_bytes())
    yield "memory://bucket/corpus"
    system.rm("/bucket", recursive=True)


@pytest.fixture
def bucket(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket on a server of this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("bucket")
    for path in source.iterdir():
        system.pipe(f"bucket/corpus/{path.name}", path.read_bytes())
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield "s3://bucket/corpus"
    fsspec.filesystem("s3").rm("bucket", recursive=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def test_http(server: FaultyServer, source: Path, opened: Callable[..., Location]) -> None:
    url = server.url
    assert files_of(opened(f"{url}/")) == expected(source)
    assert files_of(opened(f"{url}?key=a/b")) == expected(source)
    assert files_of(opened(url.replace("http", "HTTP"))) == expected(source)


def test_s3(bucket: str, source: Path, opened: Callable[..., Location]) -> None:
    assert files_of(opened(bucket)) == expected(source)


def test_s3_in_forked_workers(bucket: str, source: Path, opened: Callable[..., Location]) -> None:
    location = opened(bucket)
    location.manifest()  # fetched by the parent, whose connections are of no use to the children
    children = [Child(files_of, location) for _ in range(2)]
    assert [child.result() for child in children] == [expected(source)] * 2


def test_s3_without_a_shard_and_with_a_flipped_bit(
    bucket: str, store_of: Callable[..., ShardStore]
) -> None:
    store = store_of(bucket, max_retries=1, on_damage="skip")
    system = fsspec.filesystem("s3")
    system.rm("bucket/corpus/train-000001.tar")
    data = bytearray(system.cat("bucket/corpus/train-000002.tar"))
    data[2000] ^= 1
    system.pipe("bucket/corpus/train-000002.tar", bytes(data))
    assert [store.shard(number) is None for number in range(4)] == [False, True, True, False]
    assert "no such file" in store.skipped[1]
    assert "sha256 is" in store.skipped[2]


def test_any_other_file_system(memory: str, source: Path, opened: Callable[..., Location]) -> None:
    assert files_of(opened(memory)) == expected(source)


@pytest.mark.parametrize("scheme", ["", "file://", "local://", "FILE://"])
@pytest.mark.parametrize("verify", ["use", "size", "full"])
def test_local_folder_is_read_where_it_is(
    source: Path, opened: Callable[..., Location], scheme: str, verify: str
) -> None:
    location = opened(f"{scheme}{source}", verify=verify)
    assert isinstance(location, LocalFolder)
    assert files_of(location) == expected(source)
    info = location.manifest().splits["train"].shards[0]
    assert location.path(info) == source / info.file


@pytest.mark.parametrize("command", ["cat {folder}/{{}}", "cd '{folder}' && cat < {{}} | cat"])
def test_command(source: Path, opened: Callable[..., Location], command: str) -> None:
    assert files_of(opened("pipe:" + command.format(folder=source))) == expected(source)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("cat {folder}/none-{{}}", "ended with status 1"),
        ("cat {folder}/{{}}; exit 3", "ended with status 3"),
        ("head -c 700 {folder}/{{}}", "700 bytes long, the manifest says"),
        ("head -c 700 {folder}/{{}}; sleep 60 | cat", "no byte for 0.5 s"),
        ("cat {folder}/{{}}; exec >&-; sleep 60", "no byte for 0.5 s"),
    ],
)
def test_command_that_fails(
    source: Path,
    tmp_path: Path,
    store_of: Callable[..., ShardStore],
    command: str,
    found: str,
) -> None:
    failing = command.format(folder=source)
    script = f"pipe:case {{}} in *1.tar) {failing};; *) cat {source}/{{}};; esac"
    store = store_of(script, max_retries=1, timeout=0.5, on_damage="skip")
    assert store.shard(0) is not None
    before = time.monotonic()
    assert store.shard(1) is None
    assert time.monotonic() - before < patience(10)
    assert found in store.skipped[1]
    assert store.skipped[1].startswith("pipe:case train-000001.tar in")
    assert list((tmp_path / "cache").glob("*/*.partial")) == []


def test_all_processes_of_a_stalled_command_are_killed(
    source: Path, tmp_path: Path, store_of: Callable[..., ShardStore]
) -> None:
    marker = tmp_path / "pids"
    hanging = f"sh -c 'echo $$ >> {marker}; sleep 60; true' | cat"
    script = f"pipe:case {{}} in *1.tar) {hanging};; *) cat {source}/{{}};; esac"
    with pytest.raises(UnavailableError, match="no byte for"):
        store_of(script, max_retries=1, timeout=0.5).shard(1)
    pids = [int(line) for line in marker.read_text().split()]
    assert len(pids) == 2
    end = time.monotonic() + patience(5)
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, "a process of the command is left"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_wrong_places(opened: Callable[..., Location], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"should have {} where the name of a file goes"):
        opened("pipe:cat corpus")
    with pytest.raises(ConfigError, match=r"nonsense://a: Protocol not known"):
        opened("nonsense://a")
    with pytest.raises(ConfigError, match=r"none/manifest\.json: no such file"):
        opened(tmp_path / "none").manifest()
    with pytest.raises(ConfigError, match=r"memory://none/manifest.json: no such file.*tried 2"):
        opened("memory://none", max_retries=1).manifest()


def test_missing_package(opened: Callable[..., Location], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"needs fsspec; .*pip install 'megapt\[remote\]'"):
        opened("https://example.org/corpus")


def test_nothing_optional_is_imported_for_a_folder(source: Path) -> None:
    code = (
        "import sys; from megapt.config import ReadingConfig; "
        "from megapt.data.reading import open_location; "
        f"open_location({str(source)!r}, ReadingConfig()).manifest(); "
        "print({'fsspec', 'aiohttp', 'webdataset'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_default_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megapt.config import ReadingConfig

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    location = open_location(f"pipe:cat {source}/{{}}", ReadingConfig())
    manifest = location.manifest()
    info = manifest.splits["train"].shards[0]
    folder = tmp_path / "caches" / "megapt" / manifest.fingerprint[:16]
    assert location.path(info) == folder / info.file
