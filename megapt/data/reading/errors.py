"""What can go wrong between a corpus's files and the loader."""

from __future__ import annotations

import logging

from megapt.config import ConfigError

log = logging.getLogger("megapt.data")
"""Where faults that were overcome are reported, one line each, as warnings."""


class ReadingError(ConfigError):
    """The files of a corpus cannot be read. One line: which file, what was found, what helps."""


class DamageError(ReadingError):
    """One file is missing, damaged or stays out of reach: the error that `on_damage` is about."""


class TransferError(Exception):
    """One attempt to bring a file has failed. Its text is one line that names the file."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.splitlines()))
