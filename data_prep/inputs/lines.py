"""Records of text: lines, passages between separating lines, and whole files.

A record belongs to the byte range in which it begins, whatever the ranges are, so every
record is read once and a range can be read without its neighbors.
"""

import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from data_prep.files import CHUNK_BYTES
from data_prep.inputs.opening import BYTE_ORDER_MARK, open_file
from data_prep.inputs.places import Place
from data_prep.inputs.records import RECORD_BYTES, DocumentError, Record, Span, too_long


class _Line(NamedTuple):
    """A line, the byte after it, its place, and whether it begins in the range."""

    place: Place
    content: bytes | DocumentError
    end: int
    inside: bool


def read_whole(span: Span) -> Iterator[Record]:
    """The one record of a file that is one document."""
    place = Place(span.file, "line", 1)
    try:
        with open_file(span.file) as file:
            raw = file.read(RECORD_BYTES + 1)
    except DocumentError as error:
        yield Record(place, error)
        return
    if len(raw) > RECORD_BYTES:
        fault = f"{too_long('a text file read as one document')}; split_text could divide it"
        yield Record(place, DocumentError("too_long", fault))
    else:
        yield Record(place, raw.removeprefix(BYTE_ORDER_MARK))


def read_lines(span: Span) -> Iterator[Record]:
    """Each line that is not blank; that of a text file without its end."""
    ends = b"\r\n" if span.file.format == "text" else b""
    for line in _lines(span):
        if not line.inside:
            return
        if isinstance(line.content, DocumentError):
            yield Record(line.place, line.content)
        elif not line.content.isspace():
            yield Record(line.place, line.content.rstrip(ends))


def read_passages(span: Span, separator: bytes = b"") -> Iterator[Record]:
    """The lines between lines that hold `separator` alone; by default, between blank lines.

    A range has them from the first separating line that begins in it to the first one after
    its end.
    """
    whole = _Passage()
    owned = span.start == 0  # what is before the first separating line is the range before's
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
    """Lines of one record as they are gathered."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, place: Place, line: bytes | DocumentError) -> None:
        """Take a line; blank ones at the beginning are left out."""
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
        """The record, if any line was taken."""
        if self.place is None:
            return
        if self._bytes > RECORD_BYTES:
            yield Record(self.place, too_long("a passage"))
        else:
            yield Record(self.place, b"".join(self._lines).rstrip(b"\r\n"))


def _lines(span: Span) -> Iterator[_Line]:
    """The lines from the first that begins in a range to the end of the file.

    A fault that ends the file is the last of them.
    """
    last = span.end if span.file.divisible else sys.maxsize
    try:
        file = open_file(span.file, max(span.start - 1, 0))
    except DocumentError as error:
        if span.start == 0:  # told once, not by every range
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
    """Go to the first line that begins in the range, or past its end; returns the position."""
    if span.start == 0:
        return 0
    position, part = span.start - 1, b""
    # A line may be longer than many ranges; those inside it stop at their own end.
    while position < span.end and not part.endswith(b"\n"):
        part = file.readline(min(CHUNK_BYTES, span.end - position))
        if not part:
            return span.end
        position += len(part)
    return position if part.endswith(b"\n") else span.end


def _skip_line(file: BinaryIO, part: bytes) -> int:
    """Read the rest of a line that begins with `part`; returns its length in bytes."""
    skipped = 0
    while part and not part.endswith(b"\n"):
        part = file.readline(CHUNK_BYTES)
        skipped += len(part)
    return skipped
