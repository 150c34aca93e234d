"""Turns one unit of input into its own shards, in one process.

One pass reads, cleans, tokenizes and marks the documents, and computes their keys for the search
for duplicates. From here on the splits are separate. The result is a folder with one small shard
per split, tables of keys and an account. No list of tokens is sent between processes.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from data_prep.assembly import SPLITS
from data_prep.blocks import BlockData, keep_documents
from data_prep.cleaning import Cleaner, Removed
from data_prep.errors import PrepError
from data_prep.execution import Context
from data_prep.inputs import Document, Place, Tally, Unit, read_documents
from data_prep.manifest import FileInfo, ShardInfo
from data_prep.marks import Marker
from data_prep.pipeline.identity import check_unchanged
from data_prep.pipeline.keys import KeySegment, KeyWriter, write_array
from data_prep.settings import BuildSettings
from data_prep.shard_writer import Layout, ShardWriter, token_dtype
from data_prep.shards import check_size, check_sum
from data_prep.tokenizers import load_tokenizer

ACCOUNT_NAME = "account.json"
POISONOUS = "poisonous"


@dataclass(frozen=True)
class UnitTask:
    """A unit, and the key under which its result is kept."""

    key: str
    unit: Unit

    def __str__(self) -> str:
        return f"unit {self.unit.number} ({self.unit.spans[0].file.path} …)"


class UnitShard(BaseModel):
    """The shard of one split of a unit, and what the plan of the final shards needs of it."""

    info: ShardInfo
    """The shard."""
    table: FileInfo
    """The blocks of the shard; see `Shard`."""
    lengths: FileInfo
    """Number in the unit and token count of each of its documents, int64 [D, 2]."""


class UnitAccount(BaseModel):
    """The result of a unit."""

    records: int = 0
    """Number of records read, including rejected ones."""
    rejected: dict[str, int] = {}
    """Number of records rejected, by reason."""
    changed: dict[str, int] = {}
    """Number of documents that a step changed, or of places that it changed in them, by step."""
    examples: dict[str, list[str]] = {}
    """Places of the first records that were rejected as faulty, by reason."""
    labels: list[str] = []
    """Label names in the order of their first appearance; the labels in the shards are indices in
    this list."""
    label_kinds: dict[str, Place] = {}
    """The JSON types of labels, each with the place of the first of its kind."""
    shards: dict[str, UnitShard] = {}
    """The shards by split; a split without documents has none."""
    keys: list[KeySegment] = []
    """The tables of keys."""
    resumed: bool = False
    """Whether the result is that of an earlier build."""

    @property
    def files(self) -> list[FileInfo]:
        """All files of the unit's folder except the account."""
        of_shards = [
            file
            for shard in self.shards.values()
            for file in (shard.info, shard.table, shard.lengths)
        ]
        tables = [table for segment in self.keys for table in segment.tables.values()]
        return of_shards + tables


class _Encoded(NamedTuple):
    """A document that is kept: its number in the unit, its cleaned text, its tokens, its split."""

    number: int
    document: Document
    text: str
    utf8: bytes
    tokens: NDArray[np.int32]
    side: str


def side_of(group: bytes, valid_fraction: float, seed: int) -> str:
    """Return the split of a group: "train" or "valid", a pure function of the arguments."""
    digest = hashlib.blake2b(group, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    is_valid = int.from_bytes(digest, "little") < valid_fraction * 2.0**64
    return "valid" if is_valid else "train"


def _unique_id(document: Document) -> str | None:
    """Return an id that is unique over all corpora, each of which may count from 0."""
    return None if document.id is None else f"{document.corpus} {document.id}"


class UnitWorker:
    """Processes units; created once in each process.

    Args:
        tokenizer: path of the tokenizer's file.
        settings: the build's settings.
        folder: existing folder for the results; each result is a folder named by its task's key.
    """

    def __init__(self, tokenizer: Path, settings: BuildSettings, folder: Path) -> None:
        self.tokenizer = load_tokenizer(tokenizer)
        self.marker = Marker(self.tokenizer, settings.words)
        self.cleaner = Cleaner(settings.cleaning)
        self.settings = settings
        self.folder = folder

    def __call__(self, task: UnitTask, context: Context) -> UnitAccount:
        """Process a unit, or return the result of an earlier build.

        The unit's folder appears when it is complete. It is not synced to disk: a later build
        checks every file in it before it uses them.

        Raises:
            PrepError: a record is faulty and `errors` is "stop"; names file and line.
            OSError: an input file cannot be read or the disk is full.
        """
        if account := self._finished(task.key):
            return account
        # Another process may be at a unit with the same key, such as a file with the same content.
        partial = Path(tempfile.mkdtemp(".partial", f"{task.key}.", self.folder))
        try:
            account = _UnitRun(self, partial, context).run(task.unit)
            # Otherwise the result would be stored under the hash of other content.
            check_unchanged([span.file for span in task.unit.spans])
            (partial / ACCOUNT_NAME).write_bytes(account.model_dump_json().encode())
            self._publish(partial, task.key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return account

    def _publish(self, partial: Path, key: str) -> None:
        """Give a complete folder its name, and replace an invalid folder of this name."""
        folder = self.folder / key
        try:
            os.rename(partial, folder)
        except OSError:
            if not self._finished(key):
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(partial, folder)

    def _finished(self, key: str) -> UnitAccount | None:
        """Return the account of a unit if its folder exists and is sound, else None.

        A unit with poisonous documents is processed again: there may be more time now, or the cause
        may be fixed.
        """
        folder = self.folder / key
        try:
            account = UnitAccount.model_validate_json((folder / ACCOUNT_NAME).read_bytes())
            for file in account.files:
                check_size(folder / file.file, file)
                check_sum(folder / file.file, file)
        except (FileNotFoundError, ValidationError, PrepError):
            return None  # missing, damaged by a power failure, or written by another version
        if POISONOUS in account.rejected:
            return None
        return account.model_copy(update={"resumed": True})


class _UnitRun:
    """Processes one unit once."""

    def __init__(self, worker: UnitWorker, folder: Path, context: Context) -> None:
        self.worker = worker
        self.settings = worker.settings
        self.folder = folder
        self.context = context
        self.tally = Tally()
        self.labels: dict[str, int] = {}
        self.label_kinds: dict[str, Place] = {}
        self.keys = KeyWriter(folder, self.settings)
        self.writers: dict[str, ShardWriter] = {}
        self.lengths: dict[str, list[NDArray[np.int64]]] = {side: [] for side in SPLITS}

    def run(self, unit: Unit) -> UnitAccount:
        """Read and process all records of the unit."""
        settings, context, tally = self.settings, self.context, self.tally
        corpora = list(settings.corpora.values())
        batch: list[_Encoded] = []
        held = 0
        with ExitStack() as stack:
            for number, document in read_documents(unit, corpora, settings.errors, tally):
                if number in context.poisoned:
                    self._reject_poisonous(document.place, context.poisoned[number])
                    continue
                context.enter(number, len(document.utf8))
                if encoded := self._encode(number, document):
                    batch.append(encoded)
                    held += len(encoded.tokens)
                if not context.careful:
                    # A death later in the batch must not be attributed to this document.
                    context.leave()
                if batch and (context.careful or held >= settings.block_tokens):
                    self._flush_in_time(batch, stack)
                    batch, held = [], 0
                context.leave()
            if batch:
                self._flush_in_time(batch, stack)
        return UnitAccount(
            records=tally.records,
            rejected=tally.rejected,
            changed=tally.changed,
            examples=tally.examples,
            labels=list(self.labels),
            label_kinds=self.label_kinds,
            shards={side: self._unit_shard(side) for side in self.writers},
            keys=self.keys.close(),
        )

    def _unit_shard(self, side: str) -> UnitShard:
        writer = self.writers[side]
        table = np.array(writer.table, dtype=np.int64)
        return UnitShard(
            info=writer.info,
            table=write_array(self.folder / f"{side}.index.npy", table),
            lengths=write_array(
                self.folder / f"{side}.lengths.npy", np.concatenate(self.lengths[side])
            ),
        )

    def _encode(self, number: int, document: Document) -> _Encoded | None:
        """Clean and tokenize a document; return None if it is rejected."""
        try:
            cleaned = self.worker.cleaner.clean(document.text)
            if isinstance(cleaned, Removed):
                self.tally.rejected[cleaned.reason] += 1
                return None
            tokens = self.worker.tokenizer.encode(cleaned.text)
        except PrepError:
            raise
        except Exception as error:
            self._reject_poisonous(document.place, f"{type(error).__name__}: {error}")
            return None
        if not len(tokens):  # cleaning or the tokenizer dropped all characters
            self.tally.rejected["empty"] += 1
            return None
        if cleaned.changes:
            self.tally.changed.update(cleaned.changes)
        changed = cleaned.text is not document.text
        utf8 = cleaned.text.encode() if changed else document.utf8
        group = utf8 if document.group is None else document.group
        side = side_of(group, self.settings.valid_fraction, self.settings.seed)
        return _Encoded(number, document, cleaned.text, utf8, tokens, side)

    def _reject_poisonous(self, place: Place, how: str) -> None:
        self.tally.rejected[POISONOUS] += 1
        self.tally.examples.setdefault(POISONOUS, []).append(f"{place} ({how})")

    def _flush_in_time(self, batch: Sequence[_Encoded], stack: ExitStack) -> None:
        if not self.context.careful:
            self.context.enter_many(sum(len(one.utf8) for one in batch))
        self._flush(batch, stack)

    def _flush(self, batch: Sequence[_Encoded], stack: ExitStack) -> None:
        """Mark a batch, compute its keys, and write a block of it to each split.

        If a step fails, the documents are tried one by one.
        """
        try:
            block = self._block(batch)
            ids = [_unique_id(one.document) for one in batch]
            self.keys.add(block.documents, [one.text for one in batch], ids)
        except (PrepError, OSError):
            raise
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._flush([one], stack)
            else:
                self._reject_poisonous(batch[0].document.place, f"{type(error).__name__}: {error}")
            return
        self.context.leave()  # a slow disk must not count against a document's time limit
        sides = np.array([one.side for one in batch])
        for side in SPLITS:
            if len(part := keep_documents(block, sides == side)):
                if side not in self.writers:
                    writer = ShardWriter(self.folder / f"{side}.tar", self._layout(), durable=False)
                    self.writers[side] = stack.enter_context(writer)
                self.writers[side].write(len(self.writers[side].table), part)
                self.lengths[side].append(np.stack([part.documents, part.lens], axis=1))

    def _layout(self) -> Layout:
        """Return the layout; always with labels, as a later document may have the first label."""
        size = self.worker.tokenizer.vocabulary.size
        return Layout(
            size, labels=True, ids=self.settings.keeps_ids, corpora=bool(self.settings.names)
        )

    def _block(self, batch: Sequence[_Encoded]) -> BlockData:
        lens = np.array([len(one.tokens) for one in batch], dtype=np.uint32)
        tokens = np.concatenate([one.tokens for one in batch])
        words, sentences = self.worker.marker.mark([one.text for one in batch], tokens, lens)
        return BlockData(
            tokens=tokens.astype(token_dtype(self.worker.tokenizer.vocabulary.size)),
            words=words,
            sentences=sentences,
            lens=lens,
            bytes=np.array([len(one.utf8) for one in batch], dtype=np.uint32),
            documents=np.array([one.number for one in batch], dtype=np.int64),
            labels=np.array([self._label(one.document) for one in batch], dtype=np.int32),
            corpora=np.array([one.document.corpus for one in batch], dtype=np.uint16),
            ids=np.array([one.document.id or "" for one in batch], dtype=object),
        )

    def _label(self, document: Document) -> int:
        if document.label is None:
            return -1
        self.label_kinds.setdefault(document.label.kind, document.place)
        return self.labels.setdefault(document.label.name, len(self.labels))
