"""Locks between processes that do not wait for a process that is dead or hangs."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megapt.data.reading.errors import log

_POLL = 0.02
# Some cluster file systems have no locks; there each process continues as if it were alone.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


@contextmanager
def holding(path: Path, patience: float) -> Iterator[Callable[[], None]]:
    """Hold a lock file.

    The kernel releases the lock of a process that dies. A live process that makes no progress for
    `patience` seconds loses its lock. So the lock only avoids duplicate work; the integrity of the
    results does not depend on it.

    Args:
        path: the lock file.
        patience: seconds to wait for a holder that makes no progress.

    Yields:
        A function that the holder calls whenever it makes progress.

    Raises:
        OSError: if the lock file cannot be created.
    """
    handle = _take(path, patience)
    try:
        yield lambda: os.utime(handle)
    finally:
        # Remove the file while it is locked; waiting processes notice that it is gone.
        if _is_named(handle, path):
            path.unlink(missing_ok=True)
        # A forked child may share the handle; then closing it here does not release the lock.
        unlock(handle)
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock an open file; return False if another process holds its lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def unlock(handle: int) -> None:
    """Release a lock, also if other processes share the handle."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


def _take(path: Path, patience: float) -> int:
    """Open and lock the file of this name."""
    seen: tuple[int, int] | None = None
    deadline = 0.0
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if try_lock(handle):
            if _is_named(handle, path):
                return handle
            os.close(handle)  # Its holder has just removed it.
            continue
        state = os.fstat(handle)
        os.close(handle)
        if seen != (state.st_ino, state.st_mtime_ns):
            seen = state.st_ino, state.st_mtime_ns
            deadline = time.monotonic() + patience
        elif time.monotonic() > deadline:
            log.warning("%s: its holder made no progress for %g s; taking it over", path, patience)
            path.unlink(missing_ok=True)
        time.sleep(_POLL)


def _is_named(handle: int, path: Path) -> bool:
    """Return whether the open file still has this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
