"""Builds a corpus: shards and a manifest from raw files and a tokenizer."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from data_prep.assembly import SPLITS, Source
from data_prep.cleaning import pinned
from data_prep.errors import PrepError
from data_prep.execution import Executor
from data_prep.files import write_atomically
from data_prep.inputs import UNIT_BYTES, Place, SourceFile, Unit, find_files, plan_units
from data_prep.inputs.records import Span
from data_prep.manifest import Manifest, describe_file, sort_labels, sum_counts
from data_prep.pipeline.duplicates import find_duplicates
from data_prep.pipeline.identity import check_unchanged, identify
from data_prep.pipeline.provenance import (
    RECORD_NAME,
    BuildRecord,
    check_apart,
    find_corpus,
    library_versions,
)
from data_prep.pipeline.units import POISONOUS, UnitAccount, UnitTask, UnitWorker
from data_prep.progress import ByteProgress
from data_prep.settings import BuildSettings
from data_prep.shard_writer import Layout
from data_prep.shards import Shard
from data_prep.stages import write_splits
from data_prep.tokenizers import Tokenizer, load_tokenizer
from data_prep.workspace import Workspace, content_key, open_workspace

_MAX_UNITS = 1 << 16
_MAX_EXAMPLES = 10
# Settings on which the result of a unit does not depend.
_NOT_IN_KEYS = {"shard_tokens", "max_poisonous", "record_seconds"}


def build_corpus(
    settings: BuildSettings,
    tokenizer: Path,
    output: Path,
    executor: Executor,
    *,
    overwrite: bool = False,
    unit_bytes: int | None = None,
) -> tuple[Manifest, bool]:
    """Build the corpus `output` from text files.

    The result depends on the content and order of the inputs, the tokenizer and the settings,
    never on the executor or `unit_bytes`. `output` appears only when it is complete. The finished
    work of an interrupted build is used again.

    Args:
        settings: the input, and everything that shapes the content.
        tokenizer: path of a tokenizer's file.
        output: the corpus folder. Nothing is done if it already holds a corpus of the same
            inputs and settings.
        executor: runs the work.
        overwrite: replace another corpus in `output`.
        unit_bytes: bytes of input that a process takes at a time; None chooses by the size of
            the input.

    Returns:
        The manifest, and whether the corpus was built now (False: it already existed).

    Raises:
        PrepError: the inputs, the settings or `output` are wrong.
        OSError: reading or writing failed.
    """
    executor.record_seconds = settings.record_seconds
    settings = settings.model_copy(update={"cleaning": pinned(settings.cleaning)})
    loaded = load_tokenizer(tokenizer)
    check_apart(output, settings.corpora.values())
    files = find_files(settings.corpora)
    record = BuildRecord(
        inputs=identify(files, executor),
        tokenizer_sha256=loaded.sha256,
        settings=content_of(settings),
        versions=library_versions(),
    )
    if (existing := find_corpus(output, record, overwrite=overwrite)) is not None:
        return existing, False
    largest = max(UNIT_BYTES, sum(file.bytes for file in files) // _MAX_UNITS)
    units = plan_units(files, unit_bytes or largest, settings.errors)
    with open_workspace(output) as workspace:
        # Check again under the lock: another build may have finished in the meantime, or one may
        # have been killed while it replaced `output`.
        if (existing := find_corpus(output, record, overwrite=overwrite)) is not None:
            return existing, False
        write_atomically(workspace.corpus / loaded.file_name, loaded.data)
        build = _Build(settings, loaded, workspace, executor, record)
        build.process_units(files, units)
        manifest = build.assemble()
        check_unchanged(files)
        record.save(workspace.corpus, manifest.fingerprint, build.examples())
        manifest.save(workspace.corpus)
        workspace.publish(manifest.files | {RECORD_NAME})
    return manifest, True


def content_of(settings: BuildSettings) -> dict[str, JsonValue]:
    """Return the settings as JSON, without the paths, which do not shape the content."""
    return settings.model_dump(mode="json", exclude={"corpora": {"__all__": {"paths"}}})


class _Build:
    """One build in its workspace.

    Args:
        settings: the build's settings.
        tokenizer: the tokenizer; its file is already in the unfinished corpus.
        workspace: where everything is written.
        executor: runs the work.
        record: what identifies the build.
    """

    def __init__(
        self,
        settings: BuildSettings,
        tokenizer: Tokenizer,
        workspace: Workspace,
        executor: Executor,
        record: BuildRecord,
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.workspace = workspace
        self.executor = executor
        self.record = record
        self.keys: list[str] = []
        self.accounts: list[UnitAccount] = []

    def process_units(self, files: Sequence[SourceFile], units: Sequence[Unit]) -> None:
        """Turn every unit into its own shards, except those that an earlier build finished."""
        self.keys = list(self._unit_keys(files, units))
        tasks = [UnitTask(key, unit) for key, unit in zip(self.keys, units, strict=True)]
        path = self.workspace.corpus / self.tokenizer.file_name
        arguments = (path, self.settings, self.workspace.units)
        accounts: dict[int, UnitAccount] = {}
        kinds: dict[str, Place] = {}
        poisonous: list[str] = []
        done = self.executor.map(UnitWorker, arguments, tasks)
        total = sum(unit.bytes for unit in units)
        with ByteProgress("tokenize", total) as progress, closing(done) as results:
            for index, account in results:
                accounts[index] = account
                _check_kinds(kinds, account)
                poisonous += account.examples.get(POISONOUS, [])
                if len(poisonous) > (most := self.settings.max_poisonous):
                    raise PrepError(
                        f"{len(poisonous)} documents made a step crash or take too long, more "
                        f"than max_poisonous = {most}; the first: {poisonous[0]}"
                    )
                if account.resumed:
                    progress.skip(units[index].bytes)
                else:
                    tokens = sum(shard.info.tokens for shard in account.shards.values())
                    progress.advance(units[index].bytes, tokens)
        self.accounts = [accounts[index] for index in range(len(units))]

    def assemble(self) -> Manifest:
        """Find duplicates and write the shards of the corpus."""
        settings, accounts = self.settings, self.accounts
        records = [account.records for account in accounts]
        firsts = [end - count for end, count in zip(accumulate(records), records, strict=True)]
        labels = _label_names(accounts)
        self._check_documents(labels)
        dropped = find_duplicates(
            self.workspace, self.executor, self.keys, accounts, firsts, settings
        )
        layout = Layout(
            self.tokenizer.vocabulary.size,
            labels=bool(labels),
            ids=settings.keeps_ids,
            corpora=bool(settings.names),
        )
        splits = write_splits(
            self.workspace,
            self.executor,
            {split: list(self._sources(split, firsts, labels)) for split in SPLITS},
            layout,
            labels=len(labels),
            corpora=len(settings.corpora),
            block_tokens=settings.block_tokens,
            shard_tokens=settings.shard_tokens,
            dropped=dropped.path,
        )
        self._check_splits({side: split.documents for side, split in splits.items()})
        return Manifest.create(
            vocabulary=self.tokenizer.vocabulary,
            tokenizer=describe_file(self.tokenizer.file_name, self.tokenizer.data),
            labels=labels,
            corpora=settings.names,
            keeps_ids=settings.keeps_ids,
            splits=splits,
            rejected=sum_counts([*(account.rejected for account in accounts), dropped.counts]),
            changed=sum_counts(account.changed for account in accounts),
            settings=content_of(settings),
            source_documents=sum(records),
        )

    def examples(self) -> dict[str, list[str]]:
        """Return the places of the first documents that were rejected as faulty, by reason."""
        found: dict[str, list[str]] = {}
        for account in self.accounts:
            for reason, places in account.examples.items():
                found.setdefault(reason, []).extend(places)
        return {reason: places[:_MAX_EXAMPLES] for reason, places in sorted(found.items())}

    def _unit_keys(self, files: Sequence[SourceFile], units: Sequence[Unit]) -> Iterator[str]:
        identified = zip(files, self.record.inputs, strict=True)
        digests = {file.path: described.digest for file, described in identified}
        settings = {
            name: value for name, value in self.record.settings.items() if name not in _NOT_IN_KEYS
        }
        # A JSON object has no order, but the numbers of the corpora depend on their order.
        names = list(self.settings.corpora)
        shape = content_key(settings, names, self.tokenizer.sha256, self.record.versions)
        for unit in units:
            yield content_key(
                shape, [[digests[span.file.path], *_reading(span)] for span in unit.spans]
            )

    def _sources(
        self, split: str, firsts: Sequence[int], labels: Sequence[str]
    ) -> Iterator[Source]:
        index = {name: number for number, name in enumerate(labels)}
        corpora = np.arange(len(self.settings.corpora), dtype=np.uint16)
        for key, account, first in zip(self.keys, self.accounts, firsts, strict=True):
            if shard := account.shards.get(split):
                folder = self.workspace.units / key
                renamed = np.array([*(index[name] for name in account.labels), -1], dtype=np.int32)
                opened = Shard(folder, shard.info, folder / shard.table.file)
                yield Source(opened, first, renamed, corpora, folder / shard.lengths.file)

    def _check_documents(self, labels: Sequence[str]) -> None:
        if not any(account.shards for account in self.accounts):
            rejected = sum(sum(account.rejected.values()) for account in self.accounts)
            raise PrepError(f"the input holds no document with text ({rejected} rejected)")
        for settings in self.settings.corpora.values():
            if settings.label_field and not labels:
                raise PrepError(
                    f"no document has a label in the field {settings.label_field!r}; "
                    "omit --label-field to build without labels"
                )
        counts: Counter[str] = Counter()
        for account in self.accounts:
            counts.update({side: shard.info.documents for side, shard in account.shards.items()})
        self._check_splits(counts)

    def _check_splits(self, counts: Mapping[str, int]) -> None:
        """Check that both splits hold documents; `counts` are the documents of each split."""
        for side in SPLITS:
            if not counts.get(side):
                groups = {corpus.group_field for corpus in self.settings.corpora.values()}
                grouped = (
                    f" (grouped by {', '.join(filter(None, groups))!r})" if any(groups) else ""
                )
                change = "raise" if side == "valid" else "lower"
                documents = sum(counts.values())
                raise PrepError(
                    f"the {side} split would be empty: {documents} documents{grouped} at "
                    f"--valid-fraction {self.settings.valid_fraction:g}; {change} it, or give "
                    "more text"
                )


def _reading(span: Span) -> list[JsonValue]:
    """Return what decides how a span is read: the format of a renamed file may be different."""
    file = span.file
    return [file.corpus, file.format, file.compression, span.start, span.end]


def _check_kinds(kinds: dict[str, Place], account: UnitAccount) -> None:
    for kind, place in account.label_kinds.items():
        kinds.setdefault(kind, place)
    if len(kinds) > 1:
        (first, place), (second, other) = list(kinds.items())[:2]
        raise PrepError(
            f"{other}: the label is of type {second}, but that of {place} is of type "
            f"{first}; all labels of a corpus must have the same type"
        )


def _label_names(accounts: Sequence[UnitAccount]) -> list[str]:
    numbers = any("integer" in account.label_kinds for account in accounts)
    return sort_labels((name for account in accounts for name in account.labels), numbers=numbers)
