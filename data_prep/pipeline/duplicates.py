"""Finds the documents that repeat earlier ones, over all units of a build."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from data_prep.dedup.keys import KEY_VERSION
from data_prep.dedup.matching import (
    UnitArray,
    match_equal,
    match_near,
    merge_tables,
    opened,
    plan_buckets,
)
from data_prep.dedup.resolving import Kind, resolve
from data_prep.errors import PrepError
from data_prep.execution import Context, Executor
from data_prep.files import write_atomically
from data_prep.pipeline.units import UnitAccount
from data_prep.progress import ByteProgress
from data_prep.settings import BuildSettings
from data_prep.shard_writer import npy
from data_prep.stages import map_unfinished
from data_prep.workspace import Workspace, content_key

BUCKET_MEMORY = 256 << 20
# Every bucket's task opens every table. If there are more, tables of neighboring units are joined.
MAX_TABLES = 1024
_JOINED_BYTES = 256 << 20
REASONS = {"ids": "duplicate_id", "texts": "duplicate", "bands": "near_duplicate"}


@dataclass(frozen=True)
class _Bucket:
    """One of `buckets` ranges of keys of one kind; its result is kept under `key`."""

    key: str
    kind: str
    number: int
    buckets: int

    def __str__(self) -> str:
        return f"bucket {self.number} of {self.buckets} of {self.kind}"


class _Matches(BaseModel):
    """The pairs of a bucket: a file in the records folder, and the number of pairs in it."""

    file: str
    pairs: int


@dataclass(frozen=True)
class _TableGroup:
    """Tables of one kind that are joined into one, which is kept under `key`."""

    key: str
    tables: Sequence[UnitArray]


class _JoinedTable(BaseModel):
    """A table joined from several: a file in the records folder."""

    file: str


@dataclass(frozen=True)
class Dropped:
    """Documents that repeat earlier ones."""

    path: Path | None = None
    """.npy file of their sorted numbers, int64; None if there are no such documents."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of these documents, by reason."""


def find_duplicates(
    workspace: Workspace,
    executor: Executor,
    keys: Sequence[str],
    accounts: Sequence[UnitAccount],
    firsts: Sequence[int],
    settings: BuildSettings,
) -> Dropped:
    """Find the documents to drop: equal ids, then equal texts, then near-duplicates.

    Args:
        workspace: holds the units, and gets the results.
        executor: runs the work.
        keys: key of each unit.
        accounts: account of each unit.
        firsts: number of each unit's first document.
        settings: the build's settings.

    Raises:
        PrepError: two documents of a corpus have the same id, and `errors` is not "skip".
    """
    units = [workspace.units / key for key in keys]
    tables = {
        kind: list(_tables(units, accounts, firsts, kind))
        for kind in ("ids", "texts", "bands", "signatures")
    }
    documents = firsts[-1] + accounts[-1].records
    # Not the units' keys: a unit that is run again may have fewer poisonous documents.
    content = content_key([[file.sha256 for file in account.files] for account in accounts])
    dropped = np.empty(0, dtype=np.uint64)
    counts: dict[str, int] = {}
    path: Path | None = None
    for kind, reason in REASONS.items():
        if not tables[kind]:
            continue
        records = sum(len(opened(table.source)) for table in tables[kind])
        tables[kind] = _join(workspace, executor, tables[kind], [KEY_VERSION, content, kind])
        buckets = plan_buckets(records, BUCKET_MEMORY)
        shape = [KEY_VERSION, content, settings.deduplicate.model_dump(), kind, buckets]
        tasks = [
            _Bucket(content_key(shape, number), kind, number, buckets) for number in range(buckets)
        ]
        matches = _match(workspace, executor, tables, tasks, settings, path)
        pairs = [workspace.records / match.file for match in matches if match.pairs]
        found = resolve(pairs, documents, Kind.NEAR if kind == "bands" else Kind.EXACT)
        if len(found.documents):
            counts[reason] = len(found.documents)
            if kind == "ids" and settings.errors != "skip":
                raise PrepError(
                    f"documents {found.originals[0]} and {found.documents[0]} of the input have "
                    "the same id; ids of a corpus must be unique: fix them, or skip later ones "
                    "with --errors skip"
                )
            dropped = np.sort(np.concatenate([dropped, found.documents]))
            path = workspace.records / f"dropped-{content_key(shape)}.npy"
            write_atomically(path, npy(dropped.astype(np.int64)))
    return Dropped(path, counts)


def _tables(
    units: Sequence[Path], accounts: Sequence[UnitAccount], firsts: Sequence[int], kind: str
) -> Iterator[UnitArray]:
    for folder, account, first in zip(units, accounts, firsts, strict=True):
        for segment in account.keys:
            if kind in segment.tables:
                yield UnitArray(folder / segment.tables[kind].file, first + segment.first)


def _join(
    workspace: Workspace, executor: Executor, tables: list[UnitArray], shape: list[object]
) -> list[UnitArray]:
    """Return the tables; if there are very many, join those of neighboring units."""
    if len(tables) <= MAX_TABLES:
        return tables
    groups: list[list[UnitArray]] = []
    held = 0
    for table in tables:
        # The document numbers of a joined table have 32 bits.
        near = bool(groups) and table.first - groups[-1][0].first < 1 << 31
        if not near or held >= _JOINED_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(table)
        held += opened(table.source).nbytes
    tasks = [
        _TableGroup(content_key(shape, number, len(groups)), group)
        for number, group in enumerate(groups)
    ]

    def finished(index: int) -> _JoinedTable | None:
        return workspace.finished(tasks[index].key, _JoinedTable)

    joined = [""] * len(tasks)
    done = map_unfinished(executor, _Joiner, (workspace.records,), tasks, finished)
    with ByteProgress("join keys", len(tasks) * _JOINED_BYTES) as progress, closing(done) as found:
        for index, result in found:
            workspace.finish(tasks[index].key, result)
            joined[index] = result.file
            progress.advance(_JOINED_BYTES)
    return [
        UnitArray(workspace.records / name, group[0].first)
        for name, group in zip(joined, groups, strict=True)
    ]


@dataclass(frozen=True)
class _Joiner:
    """Joins the tables of neighboring units."""

    folder: Path

    def __call__(self, task: _TableGroup, context: Context) -> _JoinedTable:
        path = self.folder / f"joined-{task.key}.npy"
        write_atomically(path, npy(merge_tables(task.tables)))
        return _JoinedTable(file=path.name)


def _match(
    workspace: Workspace,
    executor: Executor,
    tables: Mapping[str, Sequence[UnitArray]],
    tasks: Sequence[_Bucket],
    settings: BuildSettings,
    dropped: Path | None,
) -> list[_Matches]:
    """Find the pairs of each bucket; those that an interrupted build found are used again."""

    def finished(index: int) -> _Matches | None:
        return workspace.finished(tasks[index].key, _Matches)

    results: list[_Matches] = [_Matches(file="", pairs=0)] * len(tasks)
    # Passed through a file: a large corpus has too many tables to send them with every task.
    listed = workspace.records / f"tables-{tasks[0].key}.pickle"
    listed.write_bytes(pickle.dumps(dict(tables)))
    arguments = (listed, settings, dropped, workspace.records)
    done = map_unfinished(executor, _Matcher, arguments, tasks, finished)
    total = sum(opened(table.source).nbytes for table in tables[tasks[0].kind])
    with ByteProgress(f"match {tasks[0].kind}", total) as progress, closing(done) as found:
        for index, result in found:
            workspace.finish(tasks[index].key, result)
            results[index] = result
            progress.advance(total // len(tasks))
    return results


class _Matcher:
    """Finds the pairs of a bucket among documents that are not yet dropped."""

    def __init__(
        self, tables: Path, settings: BuildSettings, dropped: Path | None, folder: Path
    ) -> None:
        self.tables: dict[str, list[UnitArray]] = pickle.loads(tables.read_bytes())
        self.near = settings.deduplicate.near
        self.dropped: NDArray[np.uint64] | None = None
        if dropped:
            self.dropped = np.load(dropped, mmap_mode="r").view(np.uint64)
        self.folder = folder

    def __call__(self, task: _Bucket, context: Context) -> _Matches:
        place = (task.number, task.buckets)
        tables = self.tables[task.kind]
        if task.kind == "bands":
            assert self.near
            signatures = self.tables["signatures"]
            pairs = match_near(tables, signatures, self.near, *place, self.dropped)
        else:
            pairs = match_equal(tables, *place, self.dropped)
        path = self.folder / f"pairs-{task.key}.npy"
        write_atomically(path, npy(pairs))
        return _Matches(file=path.name, pairs=len(pairs))
