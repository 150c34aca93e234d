"""Records of Parquet files: their rows, read in small batches and only the needed columns."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from data_prep.inputs.fields import join_names
from data_prep.inputs.opening import BUFFER_BYTES, open_seekable
from data_prep.inputs.optional import load_optional
from data_prep.inputs.places import Place, SourceFile
from data_prep.inputs.records import DocumentError, Record, Span
from data_prep.inputs.settings import InputSettings

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024


def row_counts(file: SourceFile) -> list[int]:
    """Return the number of rows of each row group, from the footer.

    Raises:
        DocumentError: "corrupt": the file is damaged, or it ends before its footer.
    """
    with closing(open_seekable(file)) as stored:
        footer = _open(file, stored).metadata
        return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


def read_rows(span: Span, settings: InputSettings) -> Iterator[Record]:
    """Yield each row of a range of row groups.

    Strings are returned as bytes, because pyarrow does not check that they are UTF-8. If a row
    cannot be read, it and all later rows of its row group are faulty.
    """
    number = 1
    try:
        with closing(open_seekable(span.file)) as stored:
            table = _open(span.file, stored)
            groups = range(table.metadata.num_row_groups)
            for group in groups:
                rows = table.metadata.row_group(group).num_rows
                if group in range(span.start, span.end) or not span.file.divisible:
                    yield from _read_group(table, group, Place(span.file, "row", number), settings)
                number += rows
    except DocumentError as error:
        yield Record(Place(span.file, "row", number), error)


def _open(file: SourceFile, stored: Any) -> Any:
    """Return the pyarrow reader of a file.

    Raises:
        DocumentError: "corrupt": the file is damaged, or it ends before its footer.
    """
    parquet = load_optional("pyarrow.parquet", "parquet", file.path)
    with _reading("not a Parquet file, or cut short"):
        return parquet.ParquetFile(
            stored, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )


def _read_group(table: Any, group: int, first: Place, settings: InputSettings) -> Iterator[Record]:
    row_group = table.metadata.row_group(group)
    rows, done = row_group.num_rows, 0
    columns, fault = _columns(table.schema_arrow, settings)
    if fault is not None:
        yield from _all_faulty(first, 0, rows, fault)
        return
    per_row = max(1, row_group.total_byte_size // max(rows, 1))
    batches = table.iter_batches(
        batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // per_row)),
        row_groups=[group],
        columns=list(columns),
        use_threads=False,
    )
    try:
        with _reading("the row group is damaged"):
            for batch in batches:
                values = [_values(batch, name) for name in columns]
                for row in zip(*values, strict=True):
                    place = first._replace(number=first.number + done)
                    yield Record(place, dict(zip(columns, row, strict=True)))
                    done += 1
    except DocumentError as error:
        yield from _all_faulty(first, done, rows, error)


def _all_faulty(first: Place, begin: int, end: int, error: DocumentError) -> Iterator[Record]:
    for row in range(begin, end):
        yield Record(first._replace(number=first.number + row), error)


def _columns(schema: Any, settings: InputSettings) -> tuple[list[str], DocumentError | None]:
    """Return the columns to read that the file has, and a fault of the schema, if any."""
    found = [name for name in settings.fields if _has(schema, name)]
    for name in found:
        if schema.names.count(name) > 1:
            return found, DocumentError("parquet", f"two columns have the name {name!r}")
    if settings.text_field in found:
        return found, None
    message = f"no column {settings.text_field!r} (columns: {join_names(schema.names)})"
    return found, DocumentError("text_missing", message)


def _has(schema: Any, name: str) -> bool:
    if name in schema.names:
        return True
    types = load_optional("pyarrow", "parquet", name).types
    fields = {field.name: field for field in schema}
    for part in name.split("."):
        if part not in fields:
            return False
        kind = fields[part].type
        fields = {field.name: field for field in kind} if types.is_struct(kind) else {}
    return True


def _values(batch: Any, name: str) -> list[Any]:
    """Return the values of a column, strings as bytes."""
    pyarrow = load_optional("pyarrow", "parquet", name)
    if name in batch.schema.names:
        column = batch.column(name)
    else:
        first, *inside = name.split(".")
        column = load_optional("pyarrow.compute", "parquet", name).struct_field(
            batch.column(first), inside
        )
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type):
        column = column.cast(pyarrow.binary())
    elif types.is_large_string(column.type) or types.is_string_view(column.type):
        column = column.cast(pyarrow.large_binary())
    values: list[Any] = column.to_pylist()
    return values


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Report a damaged file as a `DocumentError`, but pass errors of the disk or server on.

    Args:
        what: beginning of the message.

    Raises:
        DocumentError: "corrupt": the file is damaged.
    """
    pyarrow = load_optional("pyarrow", "parquet", "a Parquet file")
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise DocumentError("corrupt", f"{what} ({reason})") from None
