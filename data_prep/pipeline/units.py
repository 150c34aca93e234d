"""A unit of input to shards of its own: the work of one process.

Documents are read, cleaned, tokenized, marked and keyed for the search for duplicates in one
pass; sides of the split stay apart from here on. What comes out is a folder with a small shard
a side, tables of keys and an account; no list of tokens travels between processes.
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
    """The shard of one side of a unit, and what is needed of it to plan others.

    Attributes:
        info: the shard.
        table: its blocks; see `Shard`.
        lengths: number in the unit and tokens of each of its documents, int64 [D, 2].
    """

    info: ShardInfo
    table: FileInfo
    lengths: FileInfo


class UnitAccount(BaseModel):
    """What came of a unit.

    Attributes:
        records: records read, those rejected included.
        rejected: records left out, by reason.
        changed: documents, or places in them, that were changed, by step.
        examples: places of the first records left out as faulty, by reason.
        labels: label names in the order of their first appearance; the labels in the shards
            are indices in this list.
        label_kinds: the JSON types of labels, each with the place of the first of its kind.
        shards: by side of the split; a side without documents has none.
        keys: the tables of keys.
        resumed: whether an earlier build did the work.
    """

    records: int = 0
    rejected: dict[str, int] = {}
    changed: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    labels: list[str] = []
    label_kinds: dict[str, Place] = {}
    shards: dict[str, UnitShard] = {}
    keys: list[KeySegment] = []
    resumed: bool = False

    @property
    def files(self) -> list[FileInfo]:
        """Every file of the unit's folder beside the account."""
        of_shards = [
            file
            for shard in self.shards.values()
            for file in (shard.info, shard.table, shard.lengths)
        ]
        tables = [table for segment in self.keys for table in segment.tables.values()]
        return of_shards + tables


class _Encoded(NamedTuple):
    """A document that stays: its number in the unit, its cleaned text, its tokens, its side."""

    number: int
    document: Document
    text: str
    utf8: bytes
    tokens: NDArray[np.int32]
    side: str


def side_of(group: bytes, valid_fraction: float, seed: int) -> str:
    """The side of the split of a group: a pure function of these three, nothing else."""
    digest = hashlib.blake2b(group, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    is_valid = int.from_bytes(digest, "little") < valid_fraction * 2.0**64
    return "valid" if is_valid else "train"


def _id_in_corpus(document: Document) -> str | None:
    """What tells a document from all others: corpora may count from 0 each."""
    return None if document.id is None else f"{document.corpus} {document.id}"


class UnitWorker:
    """Works units off; made once in each process.

    Args:
        tokenizer: path of the tokenizer's file.
        settings: the build's settings.
        folder: existing folder for the results; each is a folder under its task's key.
    """

    def __init__(self, tokenizer: Path, settings: BuildSettings, folder: Path) -> None:
        self.tokenizer = load_tokenizer(tokenizer)
        self.marker = Marker(self.tokenizer, settings.words)
        self.cleaner = Cleaner(settings.cleaning)
        self.settings = settings
        self.folder = folder

    def __call__(self, task: UnitTask, context: Context) -> UnitAccount:
        """Work a unit off, or find that it was done before.

        Its folder appears when it is complete. It is not forced onto the disk: every file in it
        is checked before it is used by a later build.

        Raises:
            PrepError: a record is faulty and the settings say to stop; names file and line.
            OSError: an input file cannot be read or the disk is full.
        """
        if account := self._finished(task.key):
            return account
        # Another process may be at the same unit: at a file with the same content, for one.
        partial = Path(tempfile.mkdtemp(".partial", f"{task.key}.", self.folder))
        try:
            account = _UnitRun(self, partial, context).run(task.unit)
            # Or else the result would be taken for that of the content that was hashed.
            check_unchanged([span.file for span in task.unit.spans])
            (partial / ACCOUNT_NAME).write_bytes(account.model_dump_json().encode())
            self._put(partial, task.key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return account

    def _put(self, partial: Path, key: str) -> None:
        """Give a complete folder its name, where there may be one that is not good any more."""
        folder = self.folder / key
        try:
            os.rename(partial, folder)
        except OSError:
            if not self._finished(key):
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(partial, folder)

    def _finished(self, key: str) -> UnitAccount | None:
        """The account of a unit whose folder is there and sound.

        One with poisonous documents is done again: more time may be allowed now, or the fault
        that made them so may be mended.
        """
        folder = self.folder / key
        try:
            account = UnitAccount.model_validate_json((folder / ACCOUNT_NAME).read_bytes())
            for file in account.files:
                check_size(folder / file.file, file)
                check_sum(folder / file.file, file)
        except (FileNotFoundError, ValidationError, PrepError):
            return None  # not there; or damaged by a power cut, or written by another version
        if POISONOUS in account.rejected:
            return None
        return account.model_copy(update={"resumed": True})


class _UnitRun:
    """One run through one unit."""

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
        """Read and work off all records of the unit."""
        settings, context, tally = self.settings, self.context, self.tally
        corpora = list(settings.corpora.values())
        batch: list[_Encoded] = []
        held = 0
        with ExitStack() as stack:
            for number, document in read_documents(unit, corpora, settings.errors, tally):
                if number in context.poisoned:
                    self._poisonous(document.place, context.poisoned[number])
                    continue
                context.enter(number, len(document.utf8))
                if encoded := self._encode(number, document):
                    batch.append(encoded)
                    held += len(encoded.tokens)
                if not context.careful:
                    # A death in a batch of many documents would be this one's by chance only.
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
        """Clean and tokenize a document; None if nothing of it stays."""
        try:
            cleaned = self.worker.cleaner.clean(document.text)
            if isinstance(cleaned, Removed):
                self.tally.rejected[cleaned.reason] += 1
                return None
            tokens = self.worker.tokenizer.encode(cleaned.text)
        except PrepError:
            raise
        except Exception as error:
            self._poisonous(document.place, f"{type(error).__name__}: {error}")
            return None
        if not len(tokens):  # cleaning, or a tokenizer that drops characters, left nothing
            self.tally.rejected["empty"] += 1
            return None
        if cleaned.changes:
            self.tally.changed.update(cleaned.changes)
        changed = cleaned.text is not document.text
        utf8 = cleaned.text.encode() if changed else document.utf8
        group = utf8 if document.group is None else document.group
        side = side_of(group, self.settings.valid_fraction, self.settings.seed)
        return _Encoded(number, document, cleaned.text, utf8, tokens, side)

    def _poisonous(self, place: Place, how: str) -> None:
        self.tally.rejected[POISONOUS] += 1
        self.tally.examples.setdefault(POISONOUS, []).append(f"{place} ({how})")

    def _flush_in_time(self, batch: Sequence[_Encoded], stack: ExitStack) -> None:
        if not self.context.careful:
            self.context.enter_many(sum(len(one.utf8) for one in batch))
        self._flush(batch, stack)

    def _flush(self, batch: Sequence[_Encoded], stack: ExitStack) -> None:
        """Mark and key a batch, and write a block of it to each side.

        If something in it makes a step fail, the documents are tried one by one.
        """
        try:
            block = self._block(batch)
            ids = [_id_in_corpus(one.document) for one in batch]
            self.keys.add(block.documents, [one.text for one in batch], ids)
        except (PrepError, OSError):
            raise
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._flush([one], stack)
            else:
                self._poisonous(batch[0].document.place, f"{type(error).__name__}: {error}")
            return
        self.context.leave()  # that a disk is slow is no document's fault
        sides = np.array([one.side for one in batch])
        for side in SPLITS:
            if len(part := keep_documents(block, sides == side)):
                if side not in self.writers:
                    writer = ShardWriter(self.folder / f"{side}.tar", self._layout(), durable=False)
                    self.writers[side] = stack.enter_context(writer)
                self.writers[side].write(len(self.writers[side].table), part)
                self.lengths[side].append(np.stack([part.documents, part.lens], axis=1))

    def _layout(self) -> Layout:
        """Labels always: whether any document of the corpus has one is known at the end only."""
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
