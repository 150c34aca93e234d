"""The manifest of a corpus: what its shards hold, under one fingerprint.

`manifest.json` lists every shard with its size, its counts and its checksum. It stays small: about
200 bytes per shard, and 450 in memory. Two separate arrays per split hold the block tables of the
shards, with which a reader finds any document without scanning, and the lengths of the documents.
The fingerprint covers all checksums, so two corpora with the same fingerprint hold the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from data_prep.errors import DamagedError, PrepError
from data_prep.files import write_atomically
from data_prep.vocabulary import Vocabulary

FORMAT: Final = "megapt-shards/3"
MANIFEST_NAME = "manifest.json"
_SHARDS_AT_ONCE = 1_000
_CLOSED = ConfigDict(extra="forbid")


# A dataclass: there is one for every shard, and a pydantic model takes four times the memory.
@dataclass(frozen=True, slots=True, kw_only=True, config=_CLOSED)
class FileInfo:
    """A file of the corpus folder: its name, its size and its SHA-256."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_CLOSED)
class ShardInfo(FileInfo):
    """One tar file, with its number of documents, tokens and blocks."""

    documents: int
    tokens: int
    blocks: int


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitInfo(_Model):
    """One split of the corpus, train or valid."""

    documents: int
    """Number of documents."""
    tokens: int
    """Number of tokens."""
    text_bytes: int
    """UTF-8 bytes of the documents' text."""
    labelled: int
    """Number of documents that have a label."""
    label_counts: list[int]
    """Documents per label, in the order of `Manifest.labels`."""
    corpus_counts: list[int]
    """Documents per corpus, in the order of `Manifest.corpora`."""
    index: FileInfo
    """The block tables of all shards, concatenated: a .npy file of int64 [blocks, 3]. Its columns
    are the byte offset of a block in its tar, its documents and its tokens."""
    lengths: FileInfo
    """The token count of every document, in the order of the shards: a .npy file of uint32
    [documents]."""
    shards: list[ShardInfo]
    """The tar files, in order."""


def describe_file(file: str, data: bytes) -> FileInfo:
    """Return the entry of a file with this name and content."""
    return FileInfo(file=file, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by reason; the result is sorted by reason."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def sort_labels(names: Iterable[str], *, numbers: bool) -> list[str]:
    """Sort label names for a manifest, each once: numbers by value, others by code point."""
    return sorted(set(names), key=int if numbers else None)


class Manifest(_Model):
    """What a corpus folder holds."""

    format: str
    """Always "megapt-shards/3"."""
    fingerprint: str
    """SHA-256 over all fields below, including every shard's checksum."""
    vocabulary: Vocabulary
    """The reserved ids and the size of the tokenizer."""
    tokenizer: FileInfo
    """The tokenizer's file, in the same folder."""
    labels: list[str]
    """Names of the labels; a document's label is an index in this list."""
    corpora: list[str]
    """Names of the corpora that were built together; empty for one corpus without a name."""
    keeps_ids: bool
    """Whether the shards hold the documents' ids."""
    splits: dict[str, SplitInfo]
    """The splits "train" and "valid"."""
    rejected: dict[str, int]
    """Number of documents that were rejected, by reason."""
    changed: dict[str, int]
    """Number of documents that a step changed, or of places that it changed in them, by step."""
    settings: dict[str, JsonValue]
    """Everything that shaped the content; never paths, times or worker counts."""
    source_documents: int
    """Number of documents in the input, including rejected ones."""

    @classmethod
    def create(cls, **fields: Any) -> "Manifest":
        """Create a manifest of these fields, and fill in `format` and `fingerprint`."""
        unsigned = cls(format=FORMAT, fingerprint="", **fields)
        return unsigned.model_copy(update={"fingerprint": unsigned.computed_fingerprint()})

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read and check `folder`/manifest.json.

        Raises:
            PrepError: the file is missing or wrong; see `parse`.
        """
        path = Path(folder) / MANIFEST_NAME
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise PrepError(
                f"{path}: no such file; a corpus folder is what `megapt-prep build` writes"
            ) from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, where: str) -> "Manifest":
        """Check the content of a manifest.json.

        Args:
            data: the content.
            where: the path or URL of the file, for error messages.

        Raises:
            DamagedError: the content is not JSON, has other fields, or was edited (its
                fingerprint does not match).
            PrepError: the content has another format.
        """
        try:
            fields = json.loads(data, object_hook=_shard_or_fields)
        except ValueError as error:
            raise DamagedError(f"{where}: not JSON ({error}); build the corpus again") from None
        found = fields.get("format") if isinstance(fields, dict) else None
        if found != FORMAT:
            raise PrepError(f"{where}: format is {found!r}, this version reads {FORMAT!r}")
        try:
            manifest = cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DamagedError(
                f"{where}: {field}: {first['msg']}; build the corpus again"
            ) from None
        if manifest.computed_fingerprint() != manifest.fingerprint:
            raise DamagedError(
                f"{where}: the content does not match its fingerprint {manifest.fingerprint}: "
                "the file was edited or damaged; build the corpus again or copy it again"
            )
        return manifest

    def save(self, folder: str | Path) -> None:
        """Write `folder`/manifest.json atomically."""
        write_atomically(Path(folder) / MANIFEST_NAME, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the content of manifest.json: one line per top-level field."""
        fields = self.model_dump(mode="json")
        lines = (f" {json.dumps(name)}: {json.dumps(fields[name])}" for name in fields)
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def summary(self) -> dict[str, Any]:
        """Return the manifest as JSON values, without the lists of shards."""
        return self.model_dump(mode="json", exclude={"splits": {"__all__": {"shards"}}})

    @property
    def files(self) -> set[str]:
        """Names of the files of the corpus that the manifest describes, and its own name."""
        of_splits = (
            {split.index.file, split.lengths.file, *(shard.file for shard in split.shards)}
            for split in self.splits.values()
        )
        return {MANIFEST_NAME, self.tokenizer.file}.union(*of_splits)

    def computed_fingerprint(self) -> str:
        """Return the SHA-256 over the canonical JSON of every field except `fingerprint`."""
        digest = hashlib.sha256()
        for piece in _canonical({name: value for name, value in self if name != "fingerprint"}):
            digest.update(piece.encode())
        return digest.hexdigest()


_SHARD = TypeAdapter(ShardInfo)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=to_jsonable_python)


def _shard_or_fields(fields: dict[str, Any]) -> ShardInfo | dict[str, Any]:
    """Convert the fields of a shard at once, so that not all shards are in memory as dicts.

    Fields of other objects, and wrong fields of a shard, stay as they are: `Manifest` checks them,
    and its errors name their place.
    """
    try:
        return _SHARD.validate_python(fields)
    except ValidationError:
        return fields


def _canonical(value: Any) -> Iterator[str]:
    """Yield JSON with sorted keys and without spaces, in pieces of at most 1,000 shards."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        yield "{"
        for place, name in enumerate(sorted(value)):
            yield f"{',' if place else ''}{_CANONICAL.encode(name)}:"
            yield from _canonical(value[name])
        yield "}"
    elif isinstance(value, list):
        yield "["
        for first in range(0, len(value), _SHARDS_AT_ONCE):
            items = _CANONICAL.encode(value[first : first + _SHARDS_AT_ONCE])
            yield f"{',' if first else ''}{items[1:-1]}"
        yield "]"
    else:
        yield _CANONICAL.encode(value)
