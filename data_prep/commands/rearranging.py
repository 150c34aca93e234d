"""The commands that make new corpora from finished ones: merge, reshard."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from data_prep.commands import options
from data_prep.commands.inspecting import CorpusFolder, Splits
from data_prep.corpora.rearranging import Sizes, merge_corpora, reshard_corpus
from data_prep.execution import Executor, ExecutorKind, open_executor
from data_prep.manifest import Manifest

Output = Annotated[Path, typer.Option(help="Folder of the new corpus.")]
BlockTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens per block; default: as before.")
]
ShardTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens per shard; default: as before.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another corpus in --output.")]


def merge_command(
    corpora: Annotated[list[Path], typer.Argument(metavar="CORPUS...", help="Corpus folders.")],
    output: Output,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="A name for each corpus, in order.")
    ] = None,
    drop_ids: Annotated[bool, typer.Option("--drop-ids", help="Drop the ids.")] = False,
    block_tokens: BlockTokens = None,
    shard_tokens: ShardTokens = None,
    workers: options.Workers = None,
    executor: options.Executor = "local",
    overwrite: Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Merge corpora with the same tokenizer into one, without tokenizing again."""
    sizes = Sizes(block_tokens, shard_tokens)
    merge = partial(
        merge_corpora,
        corpora,
        output,
        sizes,
        names=names or (),
        drop_ids=drop_ids,
        overwrite=overwrite,
    )
    _rearrange(merge, executor, workers, output, "merged", as_json)


def reshard_command(
    corpus: CorpusFolder,
    output: Output,
    block_tokens: BlockTokens = None,
    shard_tokens: ShardTokens = None,
    split: Splits = None,
    workers: options.Workers = None,
    executor: options.Executor = "local",
    overwrite: Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write a corpus again with other sizes of blocks and shards."""
    sizes = Sizes(block_tokens, shard_tokens)
    reshard = partial(
        reshard_corpus, corpus, output, sizes, splits=split or (), overwrite=overwrite
    )
    _rearrange(reshard, executor, workers, output, "resharded", as_json)


def _rearrange(
    make: Callable[[Executor], tuple[Manifest, bool]],
    executor: ExecutorKind,
    workers: int | None,
    output: Path,
    verb: str,
    as_json: bool,
) -> None:
    """Make a corpus and print the result.

    Args:
        make: makes the corpus; returns its manifest, and whether it was written now.
        executor: kind of the executor.
        workers: number of processes.
        output: folder of the corpus.
        verb: what to print if the corpus was not already there.
        as_json: print JSON.
    """
    with open_executor(executor, workers) as opened:
        if opened is None:  # an MPI rank that has done its part
            return
        manifest, written = make(opened)
    done = verb if written else "already there"
    if as_json:
        print(json.dumps({"done": done, **manifest.summary()}, ensure_ascii=False))
        return
    print(f"{output}: {done}, fingerprint {manifest.fingerprint}")
    for name, split in manifest.splits.items():
        print(
            f"  {name}: {split.documents:,} documents, {split.tokens:,} tokens, "
            f"{len(split.shards):,} shards"
        )
