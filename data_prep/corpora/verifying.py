"""Checks a whole corpus: every checksum, every count, and the content of every block."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.corpora.faults import Fault, Verdict
from data_prep.corpora.manifest_checks import (
    check_counts,
    check_index,
    check_lengths,
    check_record,
    check_tokenizer,
    read_manifest,
)
from data_prep.corpora.reading import SplitReader
from data_prep.corpora.shard_checks import ShardAccount, ShardChecker, ShardTask
from data_prep.execution import Executor
from data_prep.manifest import MANIFEST_NAME, Manifest, SplitInfo
from data_prep.pipeline.provenance import RECORD_NAME
from data_prep.progress import ByteProgress

_MAX_SHARED = 10


def verify_corpus(folder: Path, executor: Executor, *, text: bool = False) -> Verdict:
    """Check every byte of a corpus; after a fault, continue as far as possible.

    Args:
        folder: the corpus folder.
        executor: runs the work.
        text: also decode every document and compare its length in bytes.

    Raises:
        PrepError: `folder` holds no manifest of this format.
        OSError: the folder cannot be read.
    """
    verdict = Verdict()
    manifest = read_manifest(folder, verdict)
    if manifest is None:
        return verdict
    verdict.fingerprint = manifest.fingerprint
    verdict.documents = sum(split.documents for split in manifest.splits.values())
    verdict.tokens = sum(split.tokens for split in manifest.splits.values())
    check_counts(manifest, verdict)
    check_record(folder, manifest, verdict)
    text = check_tokenizer(folder, manifest, verdict, text)
    tasks: list[ShardTask] = []
    for name, split in manifest.splits.items():
        table = check_index(folder, split, verdict)
        has_lengths = check_lengths(folder, split, verdict)
        tasks += _tasks(name, split, table, has_lengths)
    accounts = _read_shards(folder, manifest, tasks, executor, text, verdict)
    sound = True
    for name, split in manifest.splits.items():
        found = [accounts[i] for i, task in enumerate(tasks) if task.split == name]
        sound &= _check_sums(name, split, found, verdict)
    if sound:
        _check_sides(folder, manifest, verdict)
    verdict.notes += _unknown_files(folder, manifest)
    return verdict


def _tasks(
    name: str, split: SplitInfo, table: NDArray[np.int64] | None, has_lengths: bool
) -> Iterator[ShardTask]:
    lengths = split.lengths.file if has_lengths else None
    block = document = 0
    for info in split.shards:
        rows = None if table is None else np.array(table[block : block + info.blocks])
        yield ShardTask(name, info, block, rows, document, lengths)
        block += info.blocks
        document += info.documents


def _read_shards(
    folder: Path,
    manifest: Manifest,
    tasks: list[ShardTask],
    executor: Executor,
    text: bool,
    verdict: Verdict,
) -> dict[int, ShardAccount]:
    """Check all shards, and add their faults in the order of the shards."""
    accounts: dict[int, ShardAccount] = {}
    arguments = (folder, manifest.model_copy(update={"splits": {}}), text)
    with ByteProgress("verify", sum(task.info.bytes for task in tasks)) as progress:
        for place, account in executor.map(ShardChecker, arguments, tasks):
            accounts[place] = account
            progress.advance(tasks[place].info.bytes, tasks[place].info.tokens)
    verdict.shards = len(tasks)
    files = {task.info.sha256: task.info.file for task in tasks}
    for place, account in sorted(accounts.items()):
        info = tasks[place].info
        found = []
        if account.sha256 and account.bytes != info.bytes:
            found.append(f"{account.bytes} bytes long, the manifest says {info.bytes}")
        if account.sha256 and account.sha256 != info.sha256:
            of = f" (that of {files[account.sha256]})" if account.sha256 in files else ""
            found.append(f"sha256 is {account.sha256}{of}, the manifest says {info.sha256}")
        account.faults[:0] = [Fault(info.file, None, what) for what in found]
        verdict.faults += account.faults
    return accounts


def _check_sums(
    name: str, split: SplitInfo, accounts: list[ShardAccount], verdict: Verdict
) -> bool:
    """Compare a split with the sum of its shards; return False if it cannot be compared."""
    if any(account.faults or account.first < 0 for account in accounts):
        return False
    last = -1
    for info, account in zip(split.shards, accounts, strict=True):
        if account.first <= last:
            verdict.add(info.file, "document numbers do not increase from the previous shard")
        last = account.last
    for what, found, said in (
        ("text_bytes", sum(account.text_bytes for account in accounts), split.text_bytes),
        ("label_counts", _summed("label_counts", accounts), split.label_counts),
        ("corpus_counts", _summed("corpus_counts", accounts), split.corpus_counts),
    ):
        if found != said:
            verdict.add(MANIFEST_NAME, f"{name}: {what} is {said}, but the shards hold {found}")
    return True


def _summed(name: str, accounts: list[ShardAccount]) -> list[int]:
    total: list[int] = np.sum([getattr(account, name) for account in accounts], axis=0).tolist()
    return total


def _check_sides(folder: Path, manifest: Manifest, verdict: Verdict) -> None:
    """Check that no document is in two splits."""
    for (name, one), (other_name, other) in combinations(manifest.splits.items(), 2):
        streams = [
            (shard.documents(index) for shard, index in SplitReader(folder, side, info).blocks())
            for side, info in ((name, one), (other_name, other))
        ]
        shared = list(shared_numbers(streams[0], streams[1], most=_MAX_SHARED + 1))
        for number in shared[:_MAX_SHARED]:
            verdict.add(MANIFEST_NAME, f"document {number} is in {name} and in {other_name}")
        if len(shared) > _MAX_SHARED:
            verdict.add(MANIFEST_NAME, f"more documents are in {name} and in {other_name}")


def shared_numbers(
    one: Iterable[NDArray[np.int64]], other: Iterable[NDArray[np.int64]], most: int
) -> Iterator[int]:
    """Yield the numbers that two increasing sequences share, in increasing order.

    Args:
        one: the first sequence in parts, none of them empty.
        other: the second sequence in parts, none of them empty.
        most: stop after this many.
    """
    lefts, rights = iter(one), iter(other)
    left, right = next(lefts, None), next(rights, None)
    while left is not None and right is not None and most > 0:
        shared = np.intersect1d(left, right, assume_unique=True)[:most].tolist()
        yield from shared
        most -= len(shared)
        # The part that ends first shares nothing with what follows in the other.
        if left[-1] <= right[-1]:
            left = next(lefts, None)
        else:
            right = next(rights, None)


def _unknown_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    known = {RECORD_NAME, *manifest.files}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield f"{path.name}: not a file of this corpus"
