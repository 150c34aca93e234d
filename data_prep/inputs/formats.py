"""File formats and compressions, and the suffixes that identify them."""

from typing import Literal, NamedTuple

from data_prep.inputs.optional import load_optional, load_zstd
from data_prep.inputs.settings import InputFormat

FileFormat = Literal["jsonl", "json", "text", "parquet", "csv", "tsv"]
Compression = Literal["gzip", "zstd", "bz2", "xz"]

FORMATS: dict[str, FileFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "text",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
}
COMPRESSIONS: dict[str, Compression] = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
}
KNOWN = f"{', '.join(FORMATS)}, each bare or with {', '.join(COMPRESSIONS)}"


class Kind(NamedTuple):
    """How the content of a file is read."""

    format: FileFormat
    compression: Compression | None


def kind_of(name: str, wanted: InputFormat) -> Kind | None:
    """Return the format and compression of a file by its name, or None if they are unknown.

    A `wanted` format other than "auto" is used for any name; then the name decides only the
    compression.
    """
    stem, dot, last = name.rpartition(".")
    compression = COMPRESSIONS.get((dot + last).lower())
    if wanted != "auto":
        return Kind(wanted, compression)
    if compression:
        _, dot, last = stem.rpartition(".")
    known = FORMATS.get((dot + last).lower())
    return Kind(known, compression) if known else None


def check_libraries(kind: Kind, path: str) -> None:
    """Load the optional packages that a file needs.

    Raises:
        PrepError: a package is not installed.
    """
    if kind.format == "parquet":
        load_optional("pyarrow.parquet", "parquet", path)
    if kind.compression == "zstd":
        load_zstd(path)
