"""One process does it and the others wait, but never for one that is dead or hangs."""

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
# Some cluster file systems have no locks; there everyone goes on as if alone.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


@contextmanager
def holding(path: Path, patience: float) -> Iterator[Callable[[], None]]:
    """Hold a lock file; what is yielded is to be called whenever there is progress.

    The kernel lets go of the lock of a process that dies. One that lives and makes no progress
    for `patience` seconds loses it: so this keeps work from being done twice, and is not what
    keeps results from being damaged.

    Raises:
        OSError: the lock file cannot be made.
    """
    handle = _take(path, patience)
    try:
        yield lambda: os.utime(handle)
    finally:
        # While it is held, so that it leaves nothing behind. Who waits finds another, or none.
        if _is_named(handle, path):
            path.unlink(missing_ok=True)
        # A forked child may have the handle too, and closing one of two does not unlock.
        unlock(handle)
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock an open file unless somebody else has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def unlock(handle: int) -> None:
    """Let go of a lock, in whichever processes the handle is open."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


def _take(path: Path, patience: float) -> int:
    """An open and locked file of this name."""
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
            log.warning("%s: its holder made no progress for %g s; taken over", path, patience)
            path.unlink(missing_ok=True)
        time.sleep(_POLL)


def _is_named(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
