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
from megapt.errors import ConfigError, MegaptError, UnavailableError, is_unavailable

_SHARD, _PARTIAL = ".tar", ".partial"
_CORPUS = "[0-9a-f]" * 16
"""Pattern of the folders of this cache; nothing else in its root is ever touched."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_POLL = 0.05

Receive = Callable[[], Generator[bytes, None, None]]


class _Entry(NamedTuple):
    used: int
    """Time of the last use, in nanoseconds."""
    path: Path
    bytes: int


class Cache:
    """Files appear under their names only when they are complete and hashed.

    Each attempt writes a partial file with a unique name and holds a lock on it. So two processes
    never mix their bytes, and the partial files of dead processes can be recognized and removed.
    Only shards count toward the limit and only shards are evicted, the least recently used first;
    the index, lengths and tokenizer of a corpus stay.

    Args:
        root: the folder; created with the first file.
        limit: most bytes that shards may take, including partial ones.
        patience: seconds to wait for another process that makes no progress.
    """

    def __init__(self, root: Path, limit: float, patience: float) -> None:
        self.root = root
        self._limit = limit
        self._patience = patience

    def place(self, fingerprint: str, file: str) -> Path:
        """Return the path in the cache of a file of the corpus with this fingerprint."""
        return self.root / fingerprint[:16] / file

    def write(self, path: Path, info: FileInfo, source: str, receive: Receive) -> None:
        """Write a file, check it and move it to `path`.

        Args:
            path: a path in this cache, from `place`.
            info: the size and checksum of the file.
            source: the origin of the file, for errors.
            receive: starts a transfer of its content.

        Raises:
            TransferError: if the transfer failed, or brought other content.
            ConfigError: if `cache_bytes` leaves no room for the file.
            OSError: if the disk is full and the cache holds nothing to evict, or the cache is
                not writable.
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
                _check_content(source, info, received, digest.hexdigest())
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
        """Create a locked partial file for `path`; its full size counts from the start."""
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._patience
        while True:
            with holding(self.root / "lock", self._patience):
                entries = self._clean_up()
                missing = sum(e.bytes for e in entries) + info.bytes - self._limit
                if path.suffix != _SHARD or missing <= 0 or _evict(entries, missing):
                    return _create_partial(path, info.bytes)
            # Partial files of other processes take the room now; they become evictable shards.
            if info.bytes > self._limit or time.monotonic() > deadline:
                raise ConfigError(
                    f"{path}: {info.bytes:,} bytes do not fit in {self.root}, which may hold "
                    f"{self._limit:,.0f}; raise data.reading.cache_bytes"
                )
            time.sleep(_POLL)

    def _clean_up(self) -> list[_Entry]:
        """Return all complete and partial shards; remove the partial files of dead processes."""
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
        """Evict `needed` bytes of shards, or all shards; return whether there were any."""
        with holding(self.root / "lock", self._patience):
            entries = self._clean_up()
            shards = [entry for entry in entries if entry.path.suffix == _SHARD]
            _evict(entries, min(needed, sum(entry.bytes for entry in shards)))
            return bool(shards)


def _check_content(source: str, info: FileInfo, received: int, sha256: str) -> None:
    if received != info.bytes:
        found = f"more than {info.bytes}" if received > info.bytes else str(received)
        raise TransferError(
            f"{source}: {found} bytes long, the manifest says {info.bytes}", DamagedFile
        )
    if sha256 != info.sha256:
        raise TransferError(
            f"{source}: sha256 is {sha256}, the manifest says {info.sha256}", DamagedFile
        )


def _create_partial(path: Path, size: int) -> tuple[int, Path]:
    """Create a locked sparse file of `size` bytes next to `path`."""
    while True:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_PARTIAL}")
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if try_lock(handle) and os.fstat(handle).st_nlink:
            os.truncate(handle, size)
            return handle, partial
        os.close(handle)  # Another process removed it as abandoned before it was locked.
        partial.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Return whether no process holds the lock of a partial file; False without lock support."""
    try:
        with open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or gone
        return False
    return True


def _evict(entries: list[_Entry], needed: float) -> bool:
    """Remove the least recently used shards, only if that can free `needed` bytes."""
    shards = sorted(entry for entry in entries if entry.path.suffix == _SHARD)
    if sum(entry.bytes for entry in shards) < needed:
        return False
    for entry in shards:
        if needed <= 0:
            break
        # Processes that have mapped it can still read it: the last unmap frees the bytes.
        entry.path.unlink(missing_ok=True)
        needed -= entry.bytes
    return True


def unwritable(path: Path, info: FileInfo, error: OSError) -> MegaptError:
    """Return the error for a file that cannot be written to the cache.

    A full disk or an unavailable one may recover; a folder without write permission is a wrong
    setting.
    """
    if is_shortage(error):
        return fault_of(path, error)
    transient = error.errno in _FULL or is_unavailable(error)
    remedy = "free space" if error.errno in _FULL else "make the cache writable"
    return (UnavailableError if transient else ConfigError)(
        f"{path}: {info.bytes:,} bytes cannot be written ({error.strerror}); {remedy}, or set "
        "data.reading.cache_dir to a folder elsewhere"
    )


def make_cache(reading: ReadingConfig, patience: float) -> Cache:
    """Return the cache that the settings name."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(reading.cache_dir).expanduser() if reading.cache_dir else home / "megapt"
    return Cache(root, reading.cache_bytes, patience)
