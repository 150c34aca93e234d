"""Divide input files into units of work that any process can read independently."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data_prep.errors import PrepError
from data_prep.inputs.parquet import row_counts
from data_prep.inputs.places import SourceFile
from data_prep.inputs.records import DocumentError, Span
from data_prep.inputs.settings import ErrorPolicy

UNIT_BYTES = 8 << 20
_FOOTER_THREADS = 16  # hide the latency of object stores


@dataclass(frozen=True)
class Unit:
    """A unit of work: a part of a large file, or several consecutive small files."""

    number: int
    spans: tuple[Span, ...]

    @property
    def bytes(self) -> int:
        """Bytes of input, in stored size."""
        return sum(span.bytes for span in self.spans)


def plan_units(
    files: Sequence[SourceFile],
    unit_bytes: int = UNIT_BYTES,
    errors: ErrorPolicy = "stop",
) -> list[Unit]:
    """Divide the input into units of about `unit_bytes`, in input order.

    The plan depends only on the names and sizes of files and the row groups of Parquet files, not
    on the number of processes. A file that is not divisible stays whole, and so does a row group.
    If `errors` is "skip", a Parquet file without a footer becomes one span, whose reader finds
    and counts the fault.

    Raises:
        PrepError: a Parquet file is damaged and `errors` is not "skip".
    """
    units: list[Unit] = []
    spans: list[Span] = []
    planned = 0
    parquet = [file for file in files if file.format == "parquet" and file.divisible]
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = pool.map(lambda file: _footer(file, errors), parquet)
        for file in files:
            if not file.divisible:
                parts = [Span(file, 0, file.bytes, file.bytes)]
            elif file.format == "parquet":
                parts = _row_groups(file, next(footers), unit_bytes)
            else:
                parts = _byte_ranges(file, unit_bytes)
            for span in parts:
                spans.append(span)
                planned += span.bytes
                if planned >= unit_bytes:
                    units.append(Unit(len(units), tuple(spans)))
                    spans, planned = [], 0
    if spans:
        units.append(Unit(len(units), tuple(spans)))
    return units


def _byte_ranges(file: SourceFile, unit_bytes: int) -> list[Span]:
    ranges = []
    for start in range(0, file.bytes, unit_bytes):
        end = min(start + unit_bytes, file.bytes)
        ranges.append(Span(file, start, end, end - start))
    return ranges


def _row_groups(file: SourceFile, rows: Sequence[int], unit_bytes: int) -> list[Span]:
    """Return ranges of row groups; each gets a share of the file's bytes by its rows."""
    ranges, total = [], max(sum(rows), 1)
    start, counted, taken = 0, 0, 0
    for group, count in enumerate(rows):
        counted += count
        until = file.bytes * counted // total
        if until - taken >= unit_bytes or group == len(rows) - 1:
            ranges.append(Span(file, start, group + 1, until - taken))
            start, taken = group + 1, until
    return ranges or [Span(file, 0, 0, file.bytes)]


def _footer(file: SourceFile, errors: ErrorPolicy) -> list[int]:
    try:
        return row_counts(file)
    except DocumentError as error:
        if errors == "skip":
            return []
        raise PrepError(
            f"{file.path}: {error}; fix it, or skip such files with --errors skip"
        ) from None
