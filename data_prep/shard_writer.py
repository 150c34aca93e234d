"""Writes shards: WebDataset tars of token blocks, byte-for-byte reproducible.

docs/data.md describes the layout. A sample is a block of whole documents, so that the reading speed
does not depend on document length: one tar member per document is slower by an order of magnitude
and wastes half a kilobyte on each.
"""

import hashlib
import io
import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from data_prep.blocks import BlockData
from data_prep.files import partial_name, set_error_file, sync
from data_prep.manifest import FORMAT, ShardInfo

# Plain webdataset skips members under a folder named __like_this__.
INDEX_MEMBER = "__megapt__/index.json"


class Layout(NamedTuple):
    """The properties of a corpus that decide which members its blocks have."""

    vocabulary_size: int
    """Number of pieces of the tokenizer; decides the dtype of tokens."""
    labels: bool
    """Whether the corpus has labels."""
    ids: bool
    """Whether the corpus keeps the documents' ids."""
    corpora: bool
    """Whether the corpus names the corpora that it was built from."""


def token_dtype(vocabulary_size: int) -> "np.dtype[Any]":
    """Return the dtype of tokens in shards: uint16 if every id fits, else uint32."""
    return np.dtype("<u2") if vocabulary_size <= 1 << 16 else np.dtype("<u4")


def npy(array: NDArray[Any]) -> bytes:
    """Return an array in the .npy format, version 1.0."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


class _HashedFile:
    """A file that hashes what is written, so that it need not be read again.

    It has the two methods that tarfile calls when it writes a tar.
    """

    def __init__(self, path: Path) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 - closed by its owner, ShardWriter
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()


class ShardWriter:
    """Writes one tar; the file appears under its name only when the writer is closed.

    Use it as a context manager: after an exception no file remains. After the `with` statement
    `info` and `table` describe the shard. The bytes depend only on the blocks.

    Args:
        path: final name of the tar.
        layout: the members of the blocks.
        durable: whether the shard is synced to disk before it gets its name, so that it survives
            a power failure. False is faster, for files that are checked before they are used.

    Attributes:
        tokens: tokens written so far.
        table: byte offset in the tar, documents and tokens of each block.
    """

    def __init__(self, path: Path, layout: Layout, *, durable: bool = True) -> None:
        self.path = path
        self.layout = layout
        self.durable = durable
        self.tokens = 0
        self.table: list[tuple[int, int, int]] = []
        self._partial = partial_name(path)
        self._file = _HashedFile(self._partial)
        # The format must be given: PAX, the default, may add headers that vary.
        self._tar = tarfile.TarFile(
            fileobj=cast(IO[bytes], self._file), mode="w", format=tarfile.USTAR_FORMAT
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            set_error_file(failure, self._partial)
            raise
        finally:
            with suppress(OSError):  # flushing may fail; already reported, or not wanted
                self._file.file.close()
            self._partial.unlink(missing_ok=True)

    def write(self, key: int, block: BlockData) -> None:
        """Append a block as sample number `key` of its split.

        Raises:
            ValueError: the block is empty, or its lengths do not add up to its tokens.
            OSError: the disk is full.
        """
        total = len(block.tokens)
        if total == 0 or int(block.lens.sum()) != total:
            raise ValueError(f"block {key}: lengths add up to {block.lens.sum()}, not {total}")
        self.table.append((self._tar.offset, len(block), total))
        self.tokens += total
        try:
            for name, data in self._members(block):
                self._add(f"{key:08d}.{name}", data)
        except OSError as error:
            set_error_file(error, self._partial)
            raise

    @property
    def info(self) -> ShardInfo:
        """The manifest's entry for this shard; complete once the writer is closed."""
        return ShardInfo(
            file=self.path.name,
            bytes=self.path.stat().st_size,
            sha256=self._file.digest.hexdigest(),
            documents=sum(documents for _, documents, _ in self.table),
            tokens=self.tokens,
            blocks=len(self.table),
        )

    def _members(self, block: BlockData) -> list[tuple[str, bytes]]:
        """Return the members of a sample, sorted by name; "words" is always the last."""
        members = [("bytes.npy", npy(block.bytes.astype("<u4", copy=False)))]
        if self.layout.corpora:
            members.append(("corpora.npy", npy(block.corpora.astype("<u2", copy=False))))
        members.append(("documents.npy", npy(block.documents.astype("<i8", copy=False))))
        if self.layout.ids:
            ids = json.dumps(block.ids.tolist(), ensure_ascii=False, separators=(",", ":"))
            members.append(("ids.json", ids.encode()))
        if self.layout.labels:
            members.append(("labels.npy", npy(block.labels.astype("<i4", copy=False))))
        tokens = block.tokens.astype(token_dtype(self.layout.vocabulary_size), copy=False)
        members += [
            ("lens.npy", npy(block.lens.astype("<u4", copy=False))),
            ("sentences.npy", npy(np.packbits(block.sentences))),
            ("tokens.npy", npy(tokens)),
            ("words.npy", npy(np.packbits(block.words))),
        ]
        return members

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # defaults: mode 0644, ids 0, no names, mtime 0
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def _finish(self) -> None:
        index = {"format": FORMAT, "blocks": self.table}
        self._add(INDEX_MEMBER, json.dumps(index, separators=(",", ":")).encode())
        self._tar.close()
        self._file.file.flush()
        if self.durable:
            os.fsync(self._file.file.fileno())
        os.replace(self._partial, self.path)
        if self.durable:
            sync(self.path.parent)
