"""Records of text files: lines, passages between separator lines, and whole files.

A record belongs to the byte range in which it begins. So every record is read exactly once, and
a range can be read without its neighbors.
"""

import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from data_prep.files import CHUNK_BYTES
from data_prep.inputs.opening import BYTE_ORDER_MARK, open_file
from data_prep.inputs.places import Place
from data_prep.inputs.records import RECORD_BYTES, DocumentError, Record, Span, too_long


class _Line(NamedTuple):
    """A line: its place, its content, the byte after it, and whether it begins in the range."""

    place: Place
    content: bytes | DocumentError
    end: int
    inside: bool


def read_whole(span: Span) -> Iterator[Record]:
    """Yield the one record of a file that is one document."""
    place = Place(span.file, "line", 1)
    try:
        with open_file(span.file) as file:
            raw = file.read(RECORD_BYTES + 1)
    except DocumentError as error:
        yield Record(place, error)
        return
    if len(raw) > RECORD_BYTES:
        fault = f"{too_long('a text file read as one document')}; split it with split_text"
        yield Record(place, DocumentError("too_long", fault))
    else:
        yield Record(place, raw.removeprefix(BYTE_ORDER_MARK))


def read_lines(span: Span) -> Iterator[Record]:
    """Yield each line that is not blank; for text files, without its line ending."""
    ends = b"\r\n" if span.file.format == "text" else b""
    for line in _lines(span):
        if not line.inside:
            return
        if isinstance(line.content, DocumentError):
            yield Record(line.place, line.content)
        elif not line.content.isspace():
            yield Record(line.place, line.content.rstrip(ends))


def read_passages(span: Span, separator: bytes = b"") -> Iterator[Record]:
    """Yield the passages between lines that equal `separator`; by default, between blank lines.

    A range owns the passages from the first separator line that begins in it to the first
    separator line after its end.
    """
    whole = _Passage()
    # What precedes the first separator line belongs to the previous range.
    owned = span.start == 0
    for line in _lines(span):
        content = line.content
        if isinstance(content, DocumentError) and content.reason != "too_long":
            if owned:
                yield Record(whole.place or line.place, content)
            return
        if isinstance(content, bytes) and content.strip() == separator:
            if owned:
                yield from whole.end()
            whole, owned = _Passage(), line.inside
        elif owned:
            whole.add(line.place, content)
        if not owned and line.end >= span.end and span.file.divisible:
            return
    if owned:
        yield from whole.end()


class _Passage:
    """The lines of one record, collected one by one."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, place: Place, line: bytes | DocumentError) -> None:
        """Add a line; blank lines at the beginning are skipped."""
        if self.place is None:
            if isinstance(line, bytes) and (not line or line.isspace()):
                return
            self.place = place
        self._bytes += RECORD_BYTES + 1 if isinstance(line, DocumentError) else len(line)
        if self._bytes > RECORD_BYTES:
            self._lines.clear()
        elif isinstance(line, bytes):
            self._lines.append(line)

    def end(self) -> Iterator[Record]:
        """Yield the record, if it has any line."""
        if self.place is None:
            return
        if self._bytes > RECORD_BYTES:
            yield Record(self.place, too_long("a passage"))
        else:
            yield Record(self.place, b"".join(self._lines).rstrip(b"\r\n"))


def _lines(span: Span) -> Iterator[_Line]:
    """Yield the lines from the first that begins in a range to the end of the file.

    If a fault ends the file early, the last line holds the fault.
    """
    last = span.end if span.file.divisible else sys.maxsize
    try:
        file = open_file(span.file, max(span.start - 1, 0))
    except DocumentError as error:
        if span.start == 0:  # reported once, not by every range
            yield _Line(Place(span.file, "line", 1), error, 0, True)
        return
    with file:
        start = position = _first_line(file, span)
        number = 0
        while start < last:
            number += 1
            place = Place(span.file, "line", number, start)
            content: bytes | DocumentError
            try:
                content = file.readline(RECORD_BYTES + 1)
                begin, position = position, position + len(content)
                if len(content) > RECORD_BYTES:
                    position += _skip_line(file, content)
                    content = too_long("a line")
                elif not content:
                    return
                elif begin == 0:
                    content = content.removeprefix(BYTE_ORDER_MARK)
            except DocumentError as error:
                yield _Line(place, error, position, position < last)
                return
            yield _Line(place, content, position, begin < last)


def _first_line(file: BinaryIO, span: Span) -> int:
    """Go to the first line that begins in the range, or to its end; return the position."""
    if span.start == 0:
        return 0
    position, part = span.start - 1, b""
    # A line may span many ranges; a range in the middle of it stops at its own end.
    while position < span.end and not part.endswith(b"\n"):
        part = file.readline(min(CHUNK_BYTES, span.end - position))
        if not part:
            return span.end
        position += len(part)
    return position if part.endswith(b"\n") else span.end


def _skip_line(file: BinaryIO, part: bytes) -> int:
    """Read the rest of a line that begins with `part`; return the length of the rest in bytes."""
    skipped = 0
    while part and not part.endswith(b"\n"):
        part = file.readline(CHUNK_BYTES)
        skipped += len(part)
    return skipped
