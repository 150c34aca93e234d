"""Every fault has the kind that says whether to start the job again."""

from __future__ import annotations

import builtins
import errno
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep import errors as prep
from data_prep.manifest import MANIFEST_NAME, FileInfo
from megapt.config import ReadingConfig
from megapt.data.reading import Location, ShardStore
from megapt.data.reading.cache import unwritable
from megapt.data.reading.errors import (
    FILE_FAULTS,
    DamagedFile,
    TransferError,
    UnreachableFile,
    fault_of,
    kind_of,
)
from megapt.data.reading.retries import with_retries
from megapt.errors import ConfigError, DamagedError, Exit, MegaptError, UnavailableError
from tests.data.reading.server import Fault, FaultyServer

Opened = Callable[..., Location]
INFO = FileInfo(file="train-000001.tar", bytes=10, sha256="")


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "of_a_file", "of_a_corpus", "of_the_cache"),
    [
        (of_system(errno.EIO), UnreachableFile, UnavailableError, UnavailableError),
        (of_system(errno.ESTALE), UnreachableFile, UnavailableError, UnavailableError),
        (of_system(errno.ETIMEDOUT), UnreachableFile, UnavailableError, UnavailableError),
        (of_system(errno.EHOSTDOWN), UnreachableFile, UnavailableError, UnavailableError),
        (of_system(errno.ENOTCONN), UnreachableFile, UnavailableError, UnavailableError),
        (of_system(errno.ENOENT), DamagedFile, ConfigError, ConfigError),
        (of_system(errno.EACCES), DamagedFile, ConfigError, ConfigError),
        (of_system(errno.ENOTDIR), DamagedFile, ConfigError, ConfigError),
        (of_system(errno.EMFILE), ConfigError, ConfigError, ConfigError),
        (of_system(errno.ENFILE), ConfigError, ConfigError, ConfigError),
        (of_system(errno.ENOMEM), ConfigError, ConfigError, ConfigError),
        (of_system(errno.EROFS), DamagedFile, ConfigError, ConfigError),
        (of_system(errno.ENOSPC), DamagedFile, ConfigError, UnavailableError),
        (of_system(errno.EDQUOT), DamagedFile, ConfigError, UnavailableError),
    ],
    ids=str,
)
def test_errors_of_the_system(
    error: OSError,
    of_a_file: type[MegaptError],
    of_a_corpus: type[MegaptError],
    of_the_cache: type[MegaptError],
) -> None:
    assert type(fault_of("shard", error)) is of_a_file
    assert kind_of(error) is of_a_corpus
    assert type(unwritable(Path("shard"), INFO, error)) is of_the_cache


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (prep.DamagedError("x"), DamagedError),
        (prep.PrepError("x"), ConfigError),
        (prep.MissingPackageError("x"), ConfigError),
    ],
)
def test_errors_of_data_prep(error: prep.PrepError, kind: type[MegaptError]) -> None:
    assert kind_of(error) is kind


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        ([UnreachableFile] * 3, UnreachableFile),
        ([DamagedFile] * 3, DamagedFile),
        ([ConfigError] * 3, ConfigError),
        ([UnreachableFile, DamagedFile, DamagedFile], UnreachableFile),
        ([DamagedFile, UnreachableFile, DamagedFile], UnreachableFile),
        ([DamagedFile, DamagedFile, UnreachableFile], UnreachableFile),
    ],
)
def test_what_one_attempt_could_not_reach_is_not_known_to_be_damaged(
    faults: list[type[MegaptError]], kind: type[MegaptError]
) -> None:
    left = [TransferError("shard: wrong", fault) for fault in faults]

    def attempt() -> None:
        raise left.pop(0)

    with pytest.raises(MegaptError) as caught:
        with_retries(attempt, "shard", ReadingConfig(max_retries=2, backoff=1e-6))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault("status", 404), ConfigError, Exit.WRONG_INPUT),
        (Fault("status", 403), ConfigError, Exit.WRONG_INPUT),
        (Fault("flip", 700), DamagedError, Exit.DAMAGED),
        (Fault("short", 700), DamagedError, Exit.DAMAGED),
        (Fault("status", 503), UnavailableError, Exit.RESTART),
        (Fault("cut", 700), UnavailableError, Exit.RESTART),
    ],
    ids=str,
)
def test_a_served_manifest(
    server: FaultyServer, opened: Opened, fault: Fault, kind: type[MegaptError], code: Exit
) -> None:
    server.always[MANIFEST_NAME] = fault
    with pytest.raises(kind) as caught:
        opened(server.url, max_retries=1).manifest()
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{server.url}/{MANIFEST_NAME}: ")


def test_a_server_that_is_away(opened: Opened) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"
        with pytest.raises(UnavailableError, match="cannot be read"):
            opened(url, max_retries=1).manifest()
    with pytest.raises(UnavailableError, match=r"corpus\.invalid"):
        opened("http://corpus.invalid/corpus", max_retries=0).manifest()


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("false {}", UnavailableError),
        ("sleep 60 # {}", UnavailableError),
        ("no-such-command {}", ConfigError),
        ("/dev/null {}", ConfigError),
        ("echo {}", DamagedError),
    ],
)
def test_a_command_for_the_manifest(opened: Opened, command: str, kind: type[MegaptError]) -> None:
    with pytest.raises(kind, match=rf"^pipe:{command.split()[0]} "):
        opened(f"pipe:{command}", max_retries=1, timeout=0.5).manifest()


def edited(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes().replace(b'"documents"', b'"documentz"', 1))


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (Path.unlink, ConfigError),
        (edited, DamagedError),
        (lambda manifest: manifest.write_text("{"), DamagedError),
        (lambda manifest: manifest.write_text('{"format": "megapt-shards/9"}'), ConfigError),
    ],
)
def test_a_local_manifest(
    source: Path, opened: Opened, harm: Callable[[Path], object], kind: type[MegaptError]
) -> None:
    harm(source / MANIFEST_NAME)
    with pytest.raises(kind, match=r"manifest\.json: "):
        opened(source).manifest()


def test_a_folder_whose_disk_does_not_answer(
    source: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise of_system(errno.ESTALE)

    monkeypatch.setattr("data_prep.manifest.Path.read_bytes", fail)
    with pytest.raises(UnavailableError, match="Stale file handle"):
        opened(source).manifest()


@pytest.mark.parametrize("on_damage", ["stop", "skip"])
@pytest.mark.parametrize("away", ["stat", "open"])
def test_a_shard_on_a_disk_that_does_not_answer(
    source: Path,
    store_of: Callable[..., ShardStore],
    monkeypatch: pytest.MonkeyPatch,
    on_damage: str,
    away: str,
) -> None:
    store = store_of(source, on_damage=on_damage, verify="size")

    def fail(*_: object, **__: object) -> None:
        raise of_system(errno.ESTALE)

    with monkeypatch.context() as patch:
        patch.setattr(os if away == "stat" else builtins, away, fail)
        patch.setattr("megapt.data.reading.location.os.path.exists", lambda _: False)
        with pytest.raises(UnavailableError, match="Stale file handle"):
            store.shard(1)
    assert store.skipped == {}
    assert store.shard(1) is not None


@pytest.mark.parametrize("kind", FILE_FAULTS)
def test_a_loader_process_can_hand_an_error_over(kind: type[MegaptError]) -> None:
    there: MegaptError = pickle.loads(pickle.dumps(kind("shard: wrong")))
    assert (type(there), str(there), there.code) == (kind, "shard: wrong", kind.code)
