"""Errors of reading the files of a corpus."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from data_prep.errors import DamagedError as DamagedContent
from data_prep.errors import PrepError
from megapt.errors import ConfigError, DamagedError, MegaptError, UnavailableError, is_unavailable

log = logging.getLogger("megapt.data")
"""Reports faults that did not end the run, as warnings of one line each."""

_SHORTAGES = {
    errno.EMFILE: "raise `ulimit -n` or lower data.lanes",
    errno.ENFILE: "raise fs.file-max of this machine or lower data.lanes",
    errno.ENOMEM: "lower data.shuffle_buffer_blocks, data.lanes or data.num_workers",
}
"""Shortages of the process or its machine and their remedies; the file is not at fault."""


class DamagedFile(DamagedError):  # noqa: N818
    """One file is missing or corrupt after all retries; `on_damage` applies."""


class UnreachableFile(UnavailableError):  # noqa: N818
    """One file is out of reach after all retries; `on_damage` applies."""


FILE_FAULTS = (DamagedFile, UnreachableFile)


def is_shortage(error: Exception) -> bool:
    """Return whether the process lacks a resource, such as file handles or memory."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def fault_of(path: Path | str, error: Exception) -> MegaptError:
    """Return the error for a file that cannot be read: a fault of the file, or a shortage."""
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return ConfigError(
            f"{path}: {os.strerror(error.errno)}; the file may be intact: {_SHORTAGES[error.errno]}"
        )
    return UnreachableFile(str(error)) if is_unavailable(error) else DamagedFile(str(error))


def kind_of(error: PrepError | OSError) -> type[MegaptError]:
    """Return the error class for a fault of a whole corpus, rather than of one file."""
    if is_unavailable(error):
        return UnavailableError
    return DamagedError if isinstance(error, DamagedContent) else ConfigError


def without_advice(error: PrepError) -> str:
    """Return the message of `data_prep` without its advice to build the corpus again."""
    return str(error).partition("; build the corpus again")[0]


class TransferError(Exception):
    """One attempt to bring a file has failed.

    Args:
        text: a message that names the file; its lines are joined.
        fault: class of the final error if all attempts fail in this way; the default means that
            the file may become reachable again.
    """

    def __init__(self, text: str, fault: type[MegaptError] = UnreachableFile) -> None:
        super().__init__(" ".join(text.splitlines()))
        self.fault = fault
