"""What can go wrong between a corpus's files and the loader."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from data_prep.errors import PrepError
from megapt.errors import ConfigError

log = logging.getLogger("megapt.data")
"""Where faults that were overcome are reported, one line each, as warnings."""

_SHORTAGES = {
    errno.EMFILE: "raise `ulimit -n` or lower data.lanes",
    errno.ENFILE: "raise fs.file-max of this machine or lower data.lanes",
    errno.ENOMEM: "lower data.shuffle_blocks, data.lanes or data.workers",
}
"""What a process or its machine can be short of, which tells nothing about a file."""


class ReadingError(ConfigError):
    """The files of a corpus cannot be read. One line: which file, what was found, what helps."""


class DamageError(ReadingError):
    """One file is missing, damaged or stays out of reach: the error that `on_damage` is about."""


def is_shortage(error: Exception) -> bool:
    """Whether a file could not be read because the process is short of something."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def fault_of(path: Path | str, error: Exception) -> ReadingError:
    """The error for a file that cannot be read: its own damage, or a shortage of the process."""
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return ReadingError(
            f"{path}: {os.strerror(error.errno)}; the file may be sound: {_SHORTAGES[error.errno]}"
        )
    return DamageError(str(error))


def without_advice(error: PrepError) -> str:
    """What `data_prep` found wrong with a file, where it is too early to build it again."""
    return str(error).partition("; build the corpus again")[0]


class TransferError(Exception):
    """One attempt to bring a file has failed. Its text is one line that names the file."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.splitlines()))
