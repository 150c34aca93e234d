"""Stages of work that can be interrupted: finished results are found again and not redone."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep.assembly import (
    ShardAssembler,
    ShardPlan,
    Source,
    WrittenShard,
    plan_shards,
    summarize_split,
    write_index,
)
from data_prep.execution import Executor, Work
from data_prep.files import sha256_of, sync, write_atomically
from data_prep.lengths import write_lengths
from data_prep.manifest import FORMAT, FileInfo, SplitInfo
from data_prep.progress import ByteProgress
from data_prep.shard_writer import Layout
from data_prep.shards import read_lengths
from data_prep.workspace import Workspace, content_key

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_unfinished(
    executor: Executor,
    make: Callable[..., Work[Task, Result]],
    arguments: tuple[object, ...],
    tasks: Sequence[Task],
    finished: Callable[[int], Result | None],
) -> Generator[tuple[int, Result], None, None]:
    """Apply `make(*arguments)` to the tasks that are not finished.

    Args:
        executor: runs the work.
        make: builds the function that is applied, once in each process.
        arguments: arguments of `make`.
        tasks: all tasks.
        finished: returns the result of the task with this index if it exists, else None.

    Yields:
        The index of a task and its result: first the finished ones, then the others as they
        finish.
    """
    missing: list[int] = []
    for index in range(len(tasks)):
        if (result := finished(index)) is not None:
            yield index, result
        else:
            missing.append(index)
    wanted = [tasks[index] for index in missing]
    # Closed at once if the caller stops: no worker may keep writing while the caller cleans up.
    with closing(executor.map(make, arguments, wanted)) as results:
        for place, result in results:
            yield missing[place], result


def write_splits(
    workspace: Workspace,
    executor: Executor,
    sources: Mapping[str, Sequence[Source]],
    layout: Layout,
    *,
    labels: int,
    corpora: int,
    block_tokens: int,
    shard_tokens: int,
    dropped: Path | None = None,
) -> dict[str, SplitInfo]:
    """Write the shards, indexes and lengths of a corpus into its workspace.

    Args:
        workspace: where the corpus is written.
        executor: runs the work.
        sources: the shards that hold the documents, by split, in order.
        layout: the members of the new blocks.
        labels: number of labels of the new corpus.
        corpora: number of corpora of the new corpus, at least 1.
        block_tokens: a block ends once it holds this many tokens.
        shard_tokens: a shard ends once it holds this many tokens.
        dropped: .npy file with the sorted numbers of the documents to drop, int64.

    Returns:
        The manifest's entries of the splits. A split without documents has none.

    Raises:
        PrepError: a source is damaged.
        OSError: the disk is full.
    """
    numbers = np.load(dropped, mmap_mode="r") if dropped else np.empty(0, dtype=np.int64)
    plans: dict[str, list[ShardPlan]] = {}
    lengths: dict[str, FileInfo] = {}
    for split, parts in sources.items():
        # Lengths and plans follow from the sources, so a resumed run reads no finished shard.
        path = workspace.corpus / f"{split}.lengths.npy"
        with write_lengths(path) as add:
            plans[split] = list(plan_shards(split, parts, numbers, block_tokens, shard_tokens, add))
        lengths[split] = FileInfo(file=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))
    all_plans = [plan for planned in plans.values() for plan in planned]
    shape = [FORMAT, layout, labels, corpora, block_tokens]
    keys = [content_key(shape, _content(plan, dropped)) for plan in all_plans]
    _remove_other_plan(workspace, keys)
    arguments = (workspace.corpus, layout, labels, corpora, block_tokens, dropped)

    def finished(index: int) -> WrittenShard | None:
        found = workspace.finished(keys[index], WrittenShard)
        path = workspace.corpus / all_plans[index].file
        return found if found and path.exists() else None

    written: dict[str, WrittenShard] = {}
    tables: dict[str, NDArray[np.int64]] = {}
    total = sum(source.shard.info.bytes for parts in sources.values() for source in parts)
    with ByteProgress("write shards", total) as progress:
        unfinished = map_unfinished(executor, ShardAssembler, arguments, all_plans, finished)
        with closing(unfinished) as done:
            for index, shard in done:
                workspace.finish(keys[index], shard)
                # As arrays: lists of all blocks of a large corpus would fill the memory.
                tables[shard.info.file] = np.array(shard.table, dtype=np.int64)
                written[shard.info.file] = shard.model_copy(update={"table": []})
                progress.advance(shard.info.bytes)
    splits: dict[str, SplitInfo] = {}
    for split, planned in plans.items():
        if planned:
            shards = [written[plan.file] for plan in planned]
            blocks = [tables[plan.file] for plan in planned]
            table = write_index(workspace.corpus, split, blocks)
            splits[split] = summarize_split(shards, table, lengths[split])
            read_lengths(workspace.corpus, splits[split])  # checks their number
    return splits


def _remove_other_plan(workspace: Workspace, keys: Sequence[str]) -> None:
    """Remove shards that an interrupted run with other sizes wrote with the same names."""
    mark, plan = workspace.root / "plan", content_key(*keys).encode()
    if not mark.exists() or mark.read_bytes() != plan:
        for path in workspace.corpus.glob("*.tar"):
            path.unlink()
        sync(workspace.corpus)
        write_atomically(mark, plan)


def _content(plan: ShardPlan, dropped: Path | None) -> list[object]:
    """Return what decides the bytes of a shard, apart from its shape, as JSON values."""
    slices = [
        [
            part.source.shard.info.sha256,
            part.source.first_document,
            part.source.labels.tolist(),
            part.source.corpora.tolist(),
            part.start,
            part.stop,
        ]
        for part in plan.slices
    ]
    return [plan.file, plan.first_block, slices, dropped.name if dropped else None]
