"""Input files, and places in them for error messages."""

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from data_prep.files import CHUNK_BYTES
from data_prep.inputs.formats import Compression, FileFormat

_QUICK_READ_BYTES = 64 << 20


@dataclass(frozen=True)
class SourceFile:
    """An input file.

    A file is the same as in an earlier build if `name`, `bytes` and `stamp` are equal.
    """

    path: str
    """Local path or URL."""
    name: str
    """Name relative to the path that the user gave."""
    format: FileFormat
    """How the content is read."""
    compression: Compression | None
    """How the file is compressed; None if it is not."""
    bytes: int
    """Stored size; 0 if a server does not report it."""
    stamp: str
    """A value that changes when the file is written again: the modification time, or the tag of the
    object store; "" if a server does not report one."""
    corpus: int
    """Index of the corpus that the file belongs to."""
    divisible: bool
    """Whether a part of the file (a byte range, or row groups of Parquet) can be read without the
    rest."""

    @property
    def is_remote(self) -> bool:
        """Whether the file is read through fsspec."""
        return "://" in self.path


def local_stamp(status: os.stat_result) -> str:
    """Return the stamp of a local file."""
    return str(status.st_mtime_ns)


class Place(NamedTuple):
    """Where a record is: "file:line", "file, row 12" or "file, item 3", counted from 1.

    The reader of a byte range does not know how many lines precede the range, and only an error
    message needs that number. So these lines are counted when the place is printed. For a remote
    file they are not counted, because that would download it again; it prints as
    "file, line 3 after byte 8388608".
    """

    file: SourceFile
    """The file."""
    kind: Literal["line", "item", "row"]
    """The unit that `number` counts."""
    number: int
    """Number of the record, from 1."""
    start: int = 0
    """Byte of the file from which `number` counts lines."""

    def at(self, raw: bytes, offset: int) -> "Place":
        """Return the place of byte `offset` of the record `raw`, which begins here."""
        if self.kind != "line":
            return self
        return self._replace(number=self.number + raw.count(b"\n", 0, offset))

    def quickly(self) -> str:
        """Return the place as text, but read only a limited part of the file for it."""
        return self._printed(_QUICK_READ_BYTES)

    def __str__(self) -> str:
        return self._printed(sys.maxsize)

    def _printed(self, max_bytes: int) -> str:
        path, number = self.file.path, self.number
        if self.kind != "line":
            return f"{path}, {self.kind} {number}"
        if self.start > (0 if self.file.is_remote else max_bytes):
            return f"{path}, line {number} after byte {self.start}"
        return f"{path}:{_lines_before(path, self.start) + number}"


@lru_cache(maxsize=16)
def _lines_before(path: str, end: int) -> int:
    lines = 0
    if end:
        with open(path, "rb") as file:
            while chunk := file.read(min(end, CHUNK_BYTES)):
                lines += chunk.count(b"\n")
                end -= len(chunk)
    return lines
