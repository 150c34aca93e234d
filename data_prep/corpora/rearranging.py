"""Merges and reshards finished corpora, without tokenizing them again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from data_prep.assembly import Source
from data_prep.corpora.reading import choose_splits
from data_prep.corpora.uniting import Union, unite
from data_prep.errors import PrepError
from data_prep.execution import Context, Executor
from data_prep.files import write_atomically
from data_prep.manifest import MANIFEST_NAME, Manifest
from data_prep.pipeline.identity import InputFile
from data_prep.pipeline.provenance import RECORD_NAME, BuildRecord, find_corpus
from data_prep.progress import ByteProgress
from data_prep.shard_writer import Layout
from data_prep.shards import Shard, open_shards
from data_prep.stages import write_splits
from data_prep.workspace import open_workspace

OTHER_SPLIT = "other_split"


@dataclass(frozen=True)
class Sizes:
    """Block and shard sizes of a new corpus."""

    block_tokens: int | None = None
    """A block ends once it holds this many tokens; None keeps the size."""
    shard_tokens: int | None = None
    """A shard ends once it holds this many tokens; None keeps the size."""

    def resolved(self, folder: Path, manifest: Manifest) -> dict[str, int]:
        """Return the sizes by the names of their settings, from a manifest where they are None.

        Raises:
            PrepError: a size is None and the manifest does not have it.
        """
        found = {}
        for name, size in self.__dict__.items():
            size = size or manifest.settings.get(name)
            if not isinstance(size, int):
                option = name.replace("_", "-")
                raise PrepError(f"{folder}: its settings name no {name}; give --{option}")
            found[name] = size
        return found


def reshard_corpus(
    folder: Path,
    output: Path,
    sizes: Sizes,
    executor: Executor,
    *,
    splits: Sequence[str] = (),
    overwrite: bool = False,
) -> tuple[Manifest, bool]:
    """Write a corpus again with other sizes of blocks and shards.

    Documents, their order and their numbers stay. The result is identical, byte for byte and in its
    fingerprint, to a build with these sizes.

    Args:
        folder: the corpus.
        output: folder of the new corpus; nothing is done if it already holds this corpus.
        sizes: the new sizes.
        executor: runs the work.
        splits: the splits to keep; all if empty.
        overwrite: replace another corpus in `output`.

    Returns:
        The manifest, and whether it was written now.

    Raises:
        PrepError: the corpus is damaged, it has no such split, or `output` holds something else.
        OSError: the disk is full.
    """
    manifest = Manifest.load(folder)
    kept = choose_splits(folder, manifest, splits)
    chosen = sizes.resolved(folder, manifest)
    rejected = Counter(manifest.rejected)
    for name, split in manifest.splits.items():
        if name not in kept:
            rejected[OTHER_SPLIT] += split.documents
    changes: dict[str, object] = {
        "splits": kept,
        "rejected": dict(sorted(rejected.items())),
        "settings": {**manifest.settings, **chosen},
    }
    corpora = [range(max(1, len(manifest.corpora)))]
    union = Union(manifest.model_copy(update=changes), [manifest], corpora)
    settings: dict[str, JsonValue] = {"command": "reshard", **chosen, "splits": list(kept)}
    return _rearrange([folder], union, settings, output, executor, overwrite)


def merge_corpora(
    folders: Sequence[Path],
    output: Path,
    sizes: Sizes,
    executor: Executor,
    *,
    names: Sequence[str] = (),
    drop_ids: bool = False,
    overwrite: bool = False,
) -> tuple[Manifest, bool]:
    """Merge several corpora with the same tokenizer into one.

    The documents of a later corpus follow those of the earlier ones, and each stays in its split.
    The number of input documents of the earlier corpora is added to its number.

    Args:
        folders: the corpora, at least two.
        output: folder of the new corpus; nothing is done if it already holds this corpus.
        sizes: block and shard sizes; None for those of the first corpus.
        executor: runs the work.
        names: a name for each corpus; see `unite`.
        drop_ids: whether to drop the ids.
        overwrite: replace another corpus in `output`.

    Returns:
        The manifest, and whether it was written now.

    Raises:
        PrepError: the corpora cannot be merged, one is damaged, or `output` holds something else.
        OSError: the disk is full.
    """
    parts = [Manifest.load(folder) for folder in folders]
    chosen = sizes.resolved(folders[0], parts[0])
    union = unite(folders, parts, chosen, names=names, drop_ids=drop_ids)
    settings: dict[str, JsonValue] = {
        "command": "merge",
        **chosen,
        "names": list(names),
        "drop_ids": drop_ids,
    }
    return _rearrange(folders, union, settings, output, executor, overwrite)


def _rearrange(
    folders: Sequence[Path],
    union: Union,
    settings: dict[str, JsonValue],
    output: Path,
    executor: Executor,
    overwrite: bool,
) -> tuple[Manifest, bool]:
    """Write the shards of some corpora into a new one.

    Args:
        folders: the corpora.
        union: the result.
        settings: settings for the build record.
        output: folder of the new corpus.
        executor: runs the work.
        overwrite: replace another corpus in `output`.
    """
    for folder in folders:
        if output.resolve() == folder.resolve():
            raise PrepError(f"{output}: is the input corpus; choose another --output")
    manifest = union.manifest
    inputs = [
        InputFile(
            name=folder.resolve().name,
            bytes=(folder / MANIFEST_NAME).stat().st_size,
            digest=part.fingerprint,
        )
        for folder, part in zip(folders, union.parts, strict=True)
    ]
    record = BuildRecord(
        inputs=inputs, tokenizer_sha256=manifest.tokenizer.sha256, settings=settings, versions={}
    )
    if (existing := find_corpus(output, record, overwrite=overwrite)) is not None:
        return existing, False
    sources = {name: list(_sources(folders, union, name)) for name in manifest.splits}
    _check_sources([source.shard for parts in sources.values() for source in parts], executor)
    with open_workspace(output) as workspace:
        # Check again under the lock: another run may have finished in the meantime.
        if (existing := find_corpus(output, record, overwrite=overwrite)) is not None:
            return existing, False
        tokenizer = (folders[0] / manifest.tokenizer.file).read_bytes()
        write_atomically(workspace.corpus / manifest.tokenizer.file, tokenizer)
        splits = write_splits(
            workspace,
            executor,
            sources,
            Layout(
                vocabulary_size=manifest.vocabulary.size,
                labels=bool(manifest.labels),
                ids=manifest.keeps_ids,
                corpora=bool(manifest.corpora),
            ),
            labels=len(manifest.labels),
            corpora=max(1, len(manifest.corpora)),
            block_tokens=int(str(manifest.settings["block_tokens"])),
            shard_tokens=int(str(manifest.settings["shard_tokens"])),
        )
        fields = {name: getattr(manifest, name) for name in Manifest.model_fields}
        for name in ("format", "fingerprint"):
            del fields[name]
        written = Manifest.create(**{**fields, "splits": splits})
        record.save(workspace.corpus, written.fingerprint, {})
        written.save(workspace.corpus)
        workspace.publish({RECORD_NAME, *written.files})
    return written, True


def _sources(folders: Sequence[Path], union: Union, split: str) -> Iterable[Source]:
    """Yield the shards of a split of all parts, with the new indices of their numbers."""
    manifest = union.manifest
    new_label = {name: index for index, name in enumerate(manifest.labels)}
    first = 0
    for folder, part, corpora in zip(folders, union.parts, union.corpora, strict=True):
        if split in part.splits:
            labels = np.array([*(new_label[name] for name in part.labels), -1], dtype=np.int32)
            for shard in open_shards(folder, part.splits[split]):
                yield Source(shard, first, labels, np.array(corpora, dtype=np.uint16))
        first += part.source_documents


class _Checksum:
    """Verifies the checksums of shards in worker processes."""

    def __call__(self, shard: Shard, context: Context) -> None:
        shard.verify()


def _check_sources(shards: Sequence[Shard], executor: Executor) -> None:
    """Verify the sources, so that no damaged block is copied and gets a valid checksum.

    Raises:
        PrepError: a shard is damaged.
    """
    with ByteProgress("check", sum(shard.info.bytes for shard in shards)) as progress:
        for place, _ in executor.map(_Checksum, (), shards):
            progress.advance(shards[place].info.bytes)
