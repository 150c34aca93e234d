"""Records: the raw documents of a file, before they are parsed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from data_prep.inputs.places import Place, SourceFile

# A longer record is a fault. In binary data, or in an array with a missing bracket, a record could
# extend to the end of the file, and all of it would be in memory.
RECORD_BYTES = 256 << 20


class DocumentError(Exception):
    """A record that is not a valid document, or a file whose rest cannot be read."""

    reason: str
    """Short name under which such records are counted."""
    offset: int
    """Byte in the record at which the fault is."""

    def __init__(self, reason: str, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.offset = offset


class Record(NamedTuple):
    """The raw form of one document."""

    place: Place
    """Where the record is."""
    content: "bytes | Mapping[str, Any] | DocumentError"
    """The bytes of a text or of a JSON object; the fields of a table's row, with strings as bytes,
    because they may not be UTF-8; or the fault of the record."""


class Span(NamedTuple):
    """A part of a file, which owns the records that begin in it."""

    file: SourceFile
    """The file."""
    start: int
    """First byte, or first row group of a Parquet file."""
    end: int
    """The byte or row group after the last."""
    bytes: int
    """Number of bytes of the file in this part."""


def too_long(what: str) -> DocumentError:
    """Return the fault of a record of more than `RECORD_BYTES`."""
    return DocumentError("too_long", f"{what} is longer than {RECORD_BYTES >> 20} MiB")
