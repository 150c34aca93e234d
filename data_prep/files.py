"""Writes files atomically, and hashes files."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable.

    A rename survives a power failure only after its folder was synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def partial_name(path: Path) -> Path:
    """Return the name, in the folder of `path`, of the file while it is incomplete."""
    return path.with_name(path.name + ".partial")


def set_error_file(error: OSError, path: Path) -> None:
    """Set the file that an error is about: the system does not set it when a write fails."""
    if error.filename is None:
        error.filename = str(path)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` at the end of the `with` block.

    The file is in the folder of `path`. At the end it is flushed to disk, then renamed.

    Raises:
        OSError: the disk is full or the folder is not writable; `path` is unchanged.
    """
    partial = partial_name(path)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            set_error_file(error, path)
        raise
    sync(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `open_atomically` does.

    Raises:
        OSError: the disk is full or the folder is not writable; `path` is unchanged.
    """
    with open_atomically(path) as file:
        file.write(data)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, reading 1 MiB at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
