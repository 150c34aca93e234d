"""Writing files so that a reader sees all of one or nothing of it, and hashing them."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


def sync(path: Path) -> None:
    """Make a file's content durable, or the names in a folder.

    A rename survives a power cut only after its folder was synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def partial_name(path: Path) -> Path:
    """The name beside `path` under which its content grows until it is complete."""
    return path.with_name(path.name + ".partial")


def name_file(error: OSError, path: Path) -> None:
    """Say which file an error is about: the system does not when writing fails."""
    if error.filename is None:
        error.filename = str(path)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to be written under `path`: beside it, flushed to disk at the end, then renamed.

    Raises:
        OSError: the disk is full or the folder may not be written; `path` is unchanged.
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
            name_file(error, path)
        raise
    sync(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under `path` as `open_atomically` does.

    Raises:
        OSError: the disk is full or the folder may not be written; `path` is unchanged.
    """
    with open_atomically(path) as file:
        file.write(data)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
