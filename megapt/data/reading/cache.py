"""A folder of fetched files that the processes of a machine share, bounded in size."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from data_prep.files import sync
from data_prep.manifest import FileInfo
from megapt.config import ReadingConfig
from megapt.data.reading.errors import DamagedFile, TransferError, fault_of, is_shortage, log
from megapt.data.reading.locks import holding, try_lock, unlock
from megapt.errors import ConfigError, MegaptError, UnavailableError, is_away

_SHARD, _PARTIAL = ".tar", ".partial"
_CORPUS = "[0-9a-f]" * 16
"""Folders that can be of this cache; nothing else beside them is ever touched."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_POLL = 0.05

Receive = Callable[[], Generator[bytes, None, None]]


class _Entry(NamedTuple):
    used: int
    """When it was last used, in nanoseconds."""
    path: Path
    bytes: int


class Cache:
    """Files appear under their names complete and hashed, or not at all.

    What grows has a name of its own for every attempt and is locked by who writes it. So nothing
    that two processes do at once can mix their bytes, and leavings of the dead are told from work
    of the living. Only shards count for the bound and only they are removed, the least recently
    used first: index, lengths and tokenizer of a corpus stay.

    Args:
        root: the folder; made when the first file comes.
        limit: most bytes that shards may take, those that are still growing included.
        patience: seconds without progress after which another process is no longer waited for.
    """

    def __init__(self, root: Path, limit: float, patience: float) -> None:
        self.root = root
        self._limit = limit
        self._patience = patience

    def place(self, fingerprint: str, file: str) -> Path:
        """Where a file of the corpus with this fingerprint is kept."""
        return self.root / fingerprint[:16] / file

    def write(self, path: Path, info: FileInfo, source: str, receive: Receive) -> None:
        """Write a file, check it and give it its name.

        Args:
            path: a place of this cache.
            info: its size and its checksum.
            source: where it comes from, for errors.
            receive: starts a transfer of its content.

        Raises:
            TransferError: the transfer failed, or brought something else.
            ConfigError: `cache_bytes` leaves no room for it.
            OSError: the disk is full and the cache holds nothing to remove, or it is not
                writable.
        """
        while True:
            try:
                return self._write(path, info, source, receive)
            except OSError as error:
                if error.errno not in _FULL or not self._free(info.bytes):
                    raise
                log.warning("%s: the disk is full; older shards were removed", self.root)

    def _write(self, path: Path, info: FileInfo, source: str, receive: Receive) -> None:
        handle, partial = self._reserve(path, info)
        with open(handle, "wb") as file:
            try:
                digest, received = hashlib.sha256(), 0
                with closing(receive()) as chunks:
                    for chunk in chunks:
                        received += len(chunk)
                        if received > info.bytes:
                            break
                        digest.update(chunk)
                        file.write(chunk)
                _compare(source, info, received, digest.hexdigest())
                file.flush()
                os.fsync(handle)
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            finally:
                unlock(handle)
        sync(path.parent)

    def _reserve(self, path: Path, info: FileInfo) -> tuple[int, Path]:
        """A new locked file for the content of `path`, which counts in full from the start."""
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._patience
        while True:
            with holding(self.root / "lock", self._patience):
                entries = self._tidy()
                missing = sum(e.bytes for e in entries) + info.bytes - self._limit
                if path.suffix != _SHARD or missing <= 0 or _remove(entries, missing):
                    return _grow(path, info.bytes)
            # What is in the way is on its way: fetched at this moment, for other processes.
            if info.bytes > self._limit or time.monotonic() > deadline:
                raise ConfigError(
                    f"{path}: {info.bytes:,} bytes do not fit in {self.root}, which may hold "
                    f"{self._limit:,.0f}; raise data.reading.cache_bytes"
                )
            time.sleep(_POLL)

    def _tidy(self) -> list[_Entry]:
        """All shards, and those that grow; what dead processes left behind is removed."""
        entries = []
        for path in self.root.glob(f"{_CORPUS}/*"):
            if path.suffix == _PARTIAL and _is_abandoned(path):
                path.unlink(missing_ok=True)
            elif path.suffix == _SHARD or (path.suffix == _PARTIAL and f"{_SHARD}." in path.name):
                with suppress(FileNotFoundError):
                    state = path.stat()
                    entries.append(_Entry(state.st_mtime_ns, path, state.st_size))
        return entries

    def _free(self, needed: int) -> bool:
        """Remove shards of `needed` bytes together, or all; whether there was one to remove."""
        with holding(self.root / "lock", self._patience):
            entries = self._tidy()
            shards = [entry for entry in entries if entry.path.suffix == _SHARD]
            _remove(entries, min(needed, sum(entry.bytes for entry in shards)))
            return bool(shards)


def _compare(source: str, info: FileInfo, received: int, sha256: str) -> None:
    if received != info.bytes:
        found = f"more than {info.bytes}" if received > info.bytes else str(received)
        raise TransferError(
            f"{source}: {found} bytes long, the manifest says {info.bytes}", DamagedFile
        )
    if sha256 != info.sha256:
        raise TransferError(
            f"{source}: sha256 is {sha256}, the manifest says {info.sha256}", DamagedFile
        )


def _grow(path: Path, size: int) -> tuple[int, Path]:
    """A new file beside `path`, locked, of `size` bytes that the disk has not yet to hold."""
    while True:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_PARTIAL}")
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if try_lock(handle) and os.fstat(handle).st_nlink:
            os.truncate(handle, size)
            return handle, partial
        os.close(handle)  # Another process took it for a leaving before it was locked.
        partial.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Whether nobody holds the lock of a growing file; never where there are no locks."""
    try:
        with open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or gone
        return False
    return True


def _remove(entries: list[_Entry], needed: float) -> bool:
    """Remove the least recently used shards until `needed` bytes are free, if they can be."""
    shards = sorted(entry for entry in entries if entry.path.suffix == _SHARD)
    if sum(entry.bytes for entry in shards) < needed:
        return False
    for entry in shards:
        if needed <= 0:
            break
        # Who has it mapped reads on: the bytes go when the last map does.
        entry.path.unlink(missing_ok=True)
        needed -= entry.bytes
    return True


def unwritable(path: Path, info: FileInfo, error: OSError) -> MegaptError:
    """The error for a file that the cache cannot take.

    Space and a disk that is away may come back; a folder that may not be written is a wrong
    setting.
    """
    if is_shortage(error):
        return fault_of(path, error)
    passing = error.errno in _FULL or is_away(error)
    remedy = "free space" if error.errno in _FULL else "make the cache writable"
    return (UnavailableError if passing else ConfigError)(
        f"{path}: {info.bytes:,} bytes cannot be written ({error.strerror}); {remedy}, or set "
        "data.reading.cache_dir to a folder elsewhere"
    )


def make_cache(reading: ReadingConfig, patience: float) -> Cache:
    """The cache that the settings name."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(reading.cache_dir).expanduser() if reading.cache_dir else home / "megapt"
    return Cache(root, reading.cache_bytes, patience)
