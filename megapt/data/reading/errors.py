"""What can go wrong between a corpus's files and the loader."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from data_prep.errors import DamagedError as DamagedContent
from data_prep.errors import PrepError
from megapt.errors import ConfigError, DamagedError, MegaptError, UnavailableError, is_away

log = logging.getLogger("megapt.data")
"""Where faults that were overcome are reported, one line each, as warnings."""

_SHORTAGES = {
    errno.EMFILE: "raise `ulimit -n` or lower data.lanes",
    errno.ENFILE: "raise fs.file-max of this machine or lower data.lanes",
    errno.ENOMEM: "lower data.shuffle_blocks, data.lanes or data.num_workers",
}
"""What a process or its machine can be short of, which tells nothing about a file."""


class DamagedFile(DamagedError):  # noqa: N818
    """One file is missing or damaged, also after all retries: what `on_damage` is about."""


class UnreachableFile(UnavailableError):  # noqa: N818
    """One file stays out of reach after all retries: what `on_damage` is about too."""


FILE_FAULTS = (DamagedFile, UnreachableFile)


def is_shortage(error: Exception) -> bool:
    """Whether a file could not be read because the process is short of something."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def fault_of(path: Path | str, error: Exception) -> MegaptError:
    """The error for a file that cannot be read: its own fault, or a shortage of the process."""
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return ConfigError(
            f"{path}: {os.strerror(error.errno)}; the file may be sound: {_SHORTAGES[error.errno]}"
        )
    return UnreachableFile(str(error)) if is_away(error) else DamagedFile(str(error))


def kind_of(error: PrepError | OSError) -> type[MegaptError]:
    """The kind of what `data_prep` or the system says of a corpus, rather than of one file."""
    if is_away(error):
        return UnavailableError
    return DamagedError if isinstance(error, DamagedContent) else ConfigError


def without_advice(error: PrepError) -> str:
    """What `data_prep` found wrong with a file, where it is too early to build it again."""
    return str(error).partition("; build the corpus again")[0]


class TransferError(Exception):
    """One attempt to bring a file has failed. Its text is one line that names the file.

    Args:
        text: the line.
        fault: what it comes to if no attempt finds anything else; by default the file, or the way
            to it, may come back.
    """

    def __init__(self, text: str, fault: type[MegaptError] = UnreachableFile) -> None:
        super().__init__(" ".join(text.splitlines()))
        self.fault = fault
