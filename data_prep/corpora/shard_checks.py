"""Checks one shard: every byte of the tar, and the consistency of its content."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from data_prep.corpora.content_checks import DecodedBlock, content_faults, text_faults
from data_prep.corpora.faults import Fault
from data_prep.corpora.tar_layout import block_members, read_block, trailer_faults
from data_prep.execution import Context
from data_prep.manifest import Manifest, ShardInfo
from data_prep.tokenizers import Tokenizer, load_tokenizer

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardTask:
    """A shard to check."""

    split: str
    """Name of the shard's split."""
    info: ShardInfo
    """The shard's entry in the manifest."""
    first_block: int
    """Number of the shard's first block in the split."""
    table: NDArray[np.int64] | None
    """The shard's part of the index, int64 [blocks, 3]. None if the index is damaged: then only the
    checksum is checked."""
    first_document: int
    """Position of the shard's first document in the split."""
    lengths: str | None
    """File with the token counts of the split's documents. None if it is damaged: then they are not
    compared."""

    def __str__(self) -> str:
        return f"shard {self.info.file}"


@dataclass
class ShardAccount:
    """The result of the check of a shard."""

    faults: list[Fault] = field(default_factory=list)
    """All faults of the shard."""
    bytes: int = 0
    """Size of the file; 0 if it could not be read."""
    sha256: str = ""
    """Checksum of the file; "" if it could not be read."""
    text_bytes: int = 0
    """UTF-8 bytes of the documents' text."""
    label_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Documents per label, int64 [labels]."""
    corpus_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Documents per corpus, int64 [corpora], at least one."""
    first: int = -1
    """Number of its first document, -1 if it could not be read."""
    last: int = -1
    """Number of its last document, -1 if it could not be read."""


class ShardChecker:
    """Checks shards; created once in each process.

    Args:
        folder: the corpus folder.
        manifest: its manifest; the splits may be empty.
        text: whether to decode every document and check the length of its text.
    """

    def __init__(self, folder: Path, manifest: Manifest, text: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.tokenizer: Tokenizer | None = None
        if text:
            self.tokenizer = load_tokenizer(folder / manifest.tokenizer.file)

    def __call__(self, task: ShardTask, context: Context) -> ShardAccount:
        """Check one shard, reading it once from beginning to end."""
        account = ShardAccount(
            label_counts=np.zeros(len(self.manifest.labels), dtype=np.int64),
            corpus_counts=np.zeros(max(1, len(self.manifest.corpora)), dtype=np.int64),
        )

        def report(what: str, block: int | None = None) -> None:
            account.faults.append(Fault(task.info.file, block, what))

        try:
            with open(self.folder / task.info.file, "rb", buffering=0) as raw:
                hashed = _Hashed(raw)
                file = cast(BinaryIO, io.BufferedReader(hashed, _CHUNK_BYTES))
                if task.table is not None:
                    self._check_blocks(file, task.table, task, account, report)
                while file.read(_CHUNK_BYTES):
                    pass
                account.bytes, account.sha256 = hashed.size, hashed.digest.hexdigest()
        except FileNotFoundError:
            report("no such file, but the manifest names it")
        except OSError as error:
            report(f"cannot be read: {error.strerror}")
        return account

    def _check_blocks(
        self,
        file: BinaryIO,
        table: NDArray[np.int64],
        task: ShardTask,
        account: ShardAccount,
        report: Callable[..., None],
    ) -> None:
        rows = table.tolist()
        # The bytes after the last block, to the end of the file, are read with it.
        bounds = [row[0] for row in rows] + [task.info.bytes]
        if bounds[0] != 0 or any(np.diff(bounds) <= 0):
            report("the block offsets in the index do not increase from 0")
            return
        lengths = np.load(self.folder / task.lengths, mmap_mode="r") if task.lengths else None
        stop = task.first_document
        for place, (start, documents, tokens) in enumerate(rows):
            key = task.first_block + place
            stop += documents
            region = file.read(bounds[place + 1] - start)
            if not region:
                report(f"the file ends before this block, {len(rows) - place} are missing", key)
                return
            block, used, faults = read_block(
                region, block_members(self.manifest, key, documents, tokens)
            )
            if block is not None:
                faults += content_faults(block, self.manifest, account.last)
                if lengths is not None:
                    listed = lengths[stop - documents : stop]
                    if not np.array_equal(block.arrays["lens"], listed):
                        faults.append(f"its lens are not those in {task.lengths}")
                if self.tokenizer:
                    faults += text_faults(block, self.tokenizer)
                _count(block, account)
            for what in faults:
                report(what, key)
            if used is not None and place == len(rows) - 1:
                for what in trailer_faults(region[used:], rows):
                    report(what)
            elif used is not None and used != len(region):
                report(f"{len(region) - used} bytes after it belong to no member", key)


class _Hashed(io.RawIOBase):
    """A file that hashes the bytes that are read from it."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        self.size += count
        return count


def _count(block: DecodedBlock, account: ShardAccount) -> None:
    arrays = block.arrays
    documents = arrays["documents"]
    if account.first < 0:
        account.first = int(documents[0])
    account.last = int(documents[-1])
    account.text_bytes += int(arrays["bytes"].sum(dtype=np.int64))
    for name, counts, default in (
        ("labels", account.label_counts, -1),
        ("corpora", account.corpus_counts, 0),
    ):
        indices = arrays.get(name, np.full(len(documents), default, dtype=np.int64))
        known = indices[(indices >= 0) & (indices < len(counts))]
        counts += np.bincount(known, minlength=len(counts))
