"""The manifest of a corpus: what its shards hold, under one fingerprint.

`manifest.json` lists every shard with its size, its counts and its checksum, and so stays
small: about 200 bytes a shard, and 450 in memory. The block tables of a split's shards, which
let a reader go to any document without scanning, lie in one array beside it, and the lengths of
the documents in another. The fingerprint covers all checksums, so two corpora with the same
fingerprint hold the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from data_prep.errors import DamagedError, PrepError
from data_prep.files import write_atomically
from data_prep.vocabulary import Vocabulary

FORMAT: Final = "megapt-shards/3"
MANIFEST_NAME = "manifest.json"
_SHARDS_AT_ONCE = 1_000
_CLOSED = ConfigDict(extra="forbid")


# A model of pydantic would take four times the memory, and there is one for every shard.
@dataclass(frozen=True, slots=True, kw_only=True, config=_CLOSED)
class FileInfo:
    """A file of the corpus folder: its name, its size and its SHA-256."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_CLOSED)
class ShardInfo(FileInfo):
    """One tar, with the number of its documents, tokens and blocks."""

    documents: int
    tokens: int
    blocks: int


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True
    )


class SplitInfo(_Model):
    """One side of the corpus.

    Attributes:
        documents: number of documents.
        tokens: number of tokens.
        text_bytes: UTF-8 bytes of the documents' text.
        labeled: number of documents that have a label.
        label_counts: documents per label, in the order of `Manifest.labels`.
        corpus_counts: documents per corpus, in the order of `Manifest.corpora`.
        index: the block tables of all shards, one after another: a .npy file of int64
            [blocks, 3] whose rows are the byte offset of a block in its tar, its documents
            and its tokens.
        lengths: the tokens of every document in the order of the shards: a .npy file of
            uint32 [documents].
        shards: the tars, in order.
    """

    documents: int
    tokens: int
    text_bytes: int
    labeled: int = Field(alias="labelled")  # as the format spells it
    label_counts: list[int]
    corpus_counts: list[int]
    index: FileInfo
    lengths: FileInfo
    shards: list[ShardInfo]


def describe_file(file: str, data: bytes) -> FileInfo:
    """The entry of a file of this name and content."""
    return FileInfo(file=file, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by reason, added up; sorted by reason."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def sort_labels(names: Iterable[str], *, numbers: bool) -> list[str]:
    """Label names, each once, as a manifest lists them: numbers by value, others by code point."""
    return sorted(set(names), key=int if numbers else None)


class Manifest(_Model):
    """What a corpus folder holds.

    Attributes:
        format: always "megapt-shards/3".
        fingerprint: SHA-256 over everything below, so also over every shard's checksum.
        vocabulary: the reserved ids and the size of the tokenizer.
        tokenizer: the tokenizer's file in the same folder.
        labels: names of the labels; a document's label is an index in this list.
        corpora: names of the corpora that were built together; empty if there is one without
            a name.
        keeps_ids: whether the shards hold the documents' ids.
        splits: "train" and "valid".
        rejected: documents that were left out, by reason.
        changed: documents that were kept after a change, or places changed in them, by step.
        settings: everything that shaped the content; never paths, times or worker counts.
        source_documents: documents in the input, those rejected included.
    """

    format: str
    fingerprint: str
    vocabulary: Vocabulary
    tokenizer: FileInfo
    labels: list[str]
    corpora: list[str]
    keeps_ids: bool
    splits: dict[str, SplitInfo]
    rejected: dict[str, int]
    changed: dict[str, int]
    settings: dict[str, JsonValue]
    source_documents: int

    @classmethod
    def create(cls, **fields: Any) -> "Manifest":
        """A manifest of these fields, with `format` and `fingerprint` filled in."""
        unsigned = cls(format=FORMAT, fingerprint="", **fields)
        return unsigned.model_copy(update={"fingerprint": unsigned.computed_fingerprint()})

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read and check `folder`/manifest.json.

        Raises:
            PrepError: the file is missing, or see `parse`.
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
            where: the path or URL that it is from, for errors.

        Raises:
            DamagedError: it is not JSON, has other fields, or was edited (its fingerprint does
                not match its content).
            PrepError: it has another format.
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
                "the file was edited or damaged; build the corpus again or copy it anew"
            )
        return manifest

    def save(self, folder: str | Path) -> None:
        """Write `folder`/manifest.json atomically."""
        write_atomically(Path(folder) / MANIFEST_NAME, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of manifest.json: one line for each top-level field."""
        fields = self.model_dump(mode="json")
        lines = (f" {json.dumps(name)}: {json.dumps(fields[name])}" for name in fields)
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def summary(self) -> dict[str, Any]:
        """All of it as JSON values but the lists of shards."""
        return self.model_dump(mode="json", exclude={"splits": {"__all__": {"shards"}}})

    @property
    def files(self) -> set[str]:
        """Names of the files of the corpus folder that the manifest vouches for, and its own."""
        of_splits = (
            {split.index.file, split.lengths.file, *(shard.file for shard in split.shards)}
            for split in self.splits.values()
        )
        return {MANIFEST_NAME, self.tokenizer.file}.union(*of_splits)

    def computed_fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of every field but `fingerprint`."""
        digest = hashlib.sha256()
        for piece in _canonical({name: value for name, value in self if name != "fingerprint"}):
            digest.update(piece.encode())
        return digest.hexdigest()


_SHARD = TypeAdapter(ShardInfo)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=to_jsonable_python)


def _shard_or_fields(fields: dict[str, Any]) -> ShardInfo | dict[str, Any]:
    """A shard for the fields of one, so that they are never in memory for all shards at once.

    Fields of anything else, and those of a shard that are wrong, are left to `Manifest`, whose
    errors tell where they are.
    """
    try:
        return _SHARD.validate_python(fields)
    except ValidationError:
        return fields


def _canonical(value: Any) -> Iterator[str]:
    """JSON with sorted keys and without spaces, in pieces of at most 1,000 shards."""
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
