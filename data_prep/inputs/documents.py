"""Documents: records parsed into text, label, id and group, or rejected as faulty."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from data_prep.errors import PrepError
from data_prep.inputs.fields import (
    Label,
    find_value,
    join_names,
    kind_of_value,
    read_group,
    read_id,
    read_label,
    read_text,
)
from data_prep.inputs.json_array import read_items
from data_prep.inputs.lines import read_lines, read_passages, read_whole
from data_prep.inputs.parquet import read_rows
from data_prep.inputs.places import Place
from data_prep.inputs.records import DocumentError, Record, Span
from data_prep.inputs.settings import ErrorPolicy, InputSettings
from data_prep.inputs.tables import read_table
from data_prep.inputs.units import Unit

EXAMPLES = 3


class Document(NamedTuple):
    """One text."""

    text: str
    """The text."""
    utf8: bytes
    """Its UTF-8 bytes."""
    label: Label | None
    """The label, or None."""
    id: str | None
    """The document's own id, or None if no id field is read."""
    group: bytes | None
    """Documents with the same group go to the same side of the train/valid split. None if no group
    field is read: then documents with the same text do."""
    corpus: int
    """Index of the document's corpus."""
    repaired: bool
    """Whether bytes that are not UTF-8 were replaced by U+FFFD."""
    place: Place
    """Where the document is in the input."""


@dataclass
class Tally:
    """Counts of the records of a unit.

    A file that cannot be read, or can be read only in part, counts as one additional record.
    """

    records: int = 0
    """Number of records, including rejected ones."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Number of rejected records, by reason."""
    changed: Counter[str] = field(default_factory=Counter)
    """Number of records that were kept but changed, by kind of change."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first `EXAMPLES` rejected records of each reason, as "file:line: fault"."""

    def reject(self, reason: str, place: Place, message: str) -> None:
        """Count a rejected record."""
        self.rejected[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{place.quickly()}: {message}")


def read_documents(
    unit: Unit, corpora: Sequence[InputSettings], errors: ErrorPolicy, tally: Tally
) -> Iterator[tuple[int, Document]]:
    """Yield the valid documents of a unit, each with its number in the unit, from 0.

    Args:
        unit: what to read.
        corpora: how the files of each corpus are read.
        errors: what to do with a faulty record: "stop", "skip", or "replace", which puts U+FFFD
            for bytes that are not UTF-8 and stops at any other fault.
        tally: counts all records, and the rejected ones by reason.

    Raises:
        PrepError: a record is faulty and `errors` does not allow to skip or repair it.
        OSError: a file cannot be read.
    """
    for span in unit.spans:
        settings = corpora[span.file.corpus]
        for record in read_records(span, settings):
            number = tally.records
            tally.records += 1
            try:
                document = parse_document(record, settings, errors)
            except DocumentError as error:
                place = record.place
                if error.offset and isinstance(record.content, bytes):
                    place = place.at(record.content, error.offset)
                # An empty text is not a fault of the file: it is counted and never stops the build.
                if error.reason != "empty" and errors != "skip":
                    raise PrepError(
                        f"{place}: {error}; fix it, or skip such documents with --errors skip"
                    ) from None
                tally.reject(error.reason, place, str(error))
                continue
            if document.repaired:
                tally.changed["utf8_replaced"] += 1
            yield number, document


def read_records(span: Span, settings: InputSettings) -> Iterator[Record]:
    """Return the records that begin in a part of a file, in order."""
    form = span.file.format
    if form == "jsonl":
        return read_lines(span)
    if form == "json":
        return read_items(span)
    if form == "parquet":
        return read_rows(span, settings)
    if form in ("csv", "tsv"):
        return read_table(span, settings)
    if settings.split_text == "file":
        return read_whole(span)
    if settings.split_text == "line":
        return read_lines(span)
    return read_passages(span, (settings.separator or "").encode())


def parse_document(record: Record, settings: InputSettings, errors: ErrorPolicy) -> Document:
    """Read a record as a document.

    Raises:
        DocumentError: the record is not a valid document. The reason is the one that the reader
            gave, or "utf8", "json", "truncated", "text_missing", "text_type", "label_type",
            "id_missing", "id_type", "group_missing", "group_type", or "empty" for a text that
            is empty or only white space.
    """
    content = record.content
    if isinstance(content, DocumentError):
        raise content.with_traceback(None)  # many rows share it, and its traceback would grow
    if not isinstance(content, bytes):
        return _document(content, record.place, settings, errors)
    if record.place.file.format == "text":
        return _text_document(content, record.place, settings, errors)
    try:
        fields = orjson.loads(content)
        if type(fields) is dict:
            return _document(fields, record.place, settings, errors)
    except (orjson.JSONDecodeError, DocumentError):
        pass
    # orjson is fast, but the standard parser decides what is valid JSON. It also accepts NaN and
    # half a surrogate pair, and keeps integers beyond 64 bits, which orjson turns into floats.
    line = read_text(content, replace=errors == "replace")
    fields = _parse_json(line.characters, record.place)
    document = _document(fields, record.place, settings, errors)
    return document._replace(repaired=document.repaired or line.repaired)


def _parse_json(text: str, place: Place) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        if place.kind == "line" and not text.endswith("\n"):
            message = f"the last line is cut short, or is not a JSON object ({reason})"
            raise DocumentError("truncated", message) from None
        where = " on one line" if place.kind == "line" else ""
        raise DocumentError("json", f"not a JSON object{where} ({reason})") from None
    if not isinstance(fields, dict):
        raise DocumentError("json", f"JSON of type {kind_of_value(fields)}, not object")
    return fields


def _document(
    fields: Mapping[str, Any], place: Place, settings: InputSettings, errors: ErrorPolicy
) -> Document:
    replace = errors == "replace"
    name = settings.text_field
    try:
        value = find_value(fields, name)
    except KeyError:
        found = join_names(fields)
        raise DocumentError("text_missing", f"no field {name!r} (fields: {found})") from None
    if not isinstance(value, str | bytes):
        kind = kind_of_value(value)
        raise DocumentError("text_type", f"field {name!r} is of type {kind}, not string")
    text = read_text(value, replace=replace)
    label, id_, group = settings.label_name, settings.id_field, settings.group_field
    document = Document(
        text=text.characters,
        utf8=text.utf8,
        label=read_label(fields, label, replace=replace) if label else None,
        id=read_id(fields, id_, replace=replace) if id_ else None,
        group=read_group(fields, group, replace=replace) if group else None,
        corpus=place.file.corpus,
        repaired=text.repaired,
        place=place,
    )
    return _not_empty(document)


def _text_document(
    raw: bytes, place: Place, settings: InputSettings, errors: ErrorPolicy
) -> Document:
    if settings.group_field is not None:
        raise DocumentError("group_missing", "a text file has no fields, so no group field")
    if settings.id_field is not None:
        raise DocumentError("id_missing", "a text file has no fields, so no id field")
    text = read_text(raw, replace=errors == "replace")
    corpus = place.file.corpus
    return _not_empty(
        Document(text.characters, text.utf8, None, None, None, corpus, text.repaired, place)
    )


def _not_empty(document: Document) -> Document:
    if not document.text or document.text.isspace():
        raise DocumentError("empty", "the text is empty")
    return document
