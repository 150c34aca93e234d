"""Records of CSV and TSV files: their rows, with the names of the header row.

CSV follows RFC 4180: fields with commas, quotes or line breaks are quoted, and a quote inside
them is doubled. TSV follows IANA's text/tab-separated-values: a line is a row, and quotes have
no meaning.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from data_prep.inputs.opening import open_file
from data_prep.inputs.places import Place
from data_prep.inputs.records import RECORD_BYTES, DocumentError, Record, Span
from data_prep.inputs.settings import InputSettings


class _Dialect(TypedDict, total=False):
    delimiter: str
    quoting: Any


_DIALECTS: Mapping[str, _Dialect] = {
    "csv": {"delimiter": ","},
    "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}


def read_table(span: Span, settings: InputSettings) -> Iterator[Record]:
    """Yield each row that is not blank, with the place of its first line.

    Fields are strings. An empty field counts as missing, unless it is the text.
    """
    csv.field_size_limit(RECORD_BYTES)
    number = 1
    try:
        with (
            open_file(span.file) as file,
            # Bytes that are not UTF-8 are kept here; the document parser reports them.
            io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as lines,
        ):
            rows = csv.reader(lines, strict=True, **_DIALECTS[span.file.format])
            read = settings.fields
            header = _read_header(rows, read)
            while True:
                number = rows.line_num + 1
                place = Place(span.file, "line", number)
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    yield Record(place, _fault(error))
                    continue
                if row is None:
                    return
                if len(row) == len(header):
                    yield Record(place, _fields(header, row, read))
                elif row:
                    message = f"a row of {len(row)} fields, but the header has {len(header)}"
                    yield Record(place, DocumentError("csv", message))
    except DocumentError as error:
        yield Record(Place(span.file, "line", number), error)


def _read_header(rows: Iterator[list[str]], read: Sequence[str]) -> list[str]:
    try:
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise _fault(error) from None
    if header is None:
        raise DocumentError("csv", "an empty file; the first row must name the columns")
    for name in read:
        if header.count(name) > 1:
            raise DocumentError("csv", f"the header names the column {name!r} twice")
    return header


def _fields(header: Sequence[str], row: Sequence[str], read: Sequence[str]) -> dict[str, Any]:
    """Return a row as a mapping, with the fields in `read` as bytes (None for an empty one)."""
    fields: dict[str, Any] = dict(zip(header, row, strict=True))
    text, *others = read
    if text in fields:
        fields[text] = fields[text].encode("utf-8", "surrogateescape")
    for name in others:
        if name in fields:
            fields[name] = fields[name].encode("utf-8", "surrogateescape") or None
    return fields


def _fault(error: csv.Error) -> DocumentError:
    if "unexpected end of data" in str(error):
        return DocumentError("truncated", "the file ends inside a quoted field")
    return DocumentError("csv", f"not a row of the table ({error})")
