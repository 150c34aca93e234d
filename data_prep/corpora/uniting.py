"""Decides which corpora can be merged, and computes the manifest of the result."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from pydantic import JsonValue

from data_prep.errors import PrepError
from data_prep.manifest import Manifest, sort_labels, sum_counts


@dataclass(frozen=True)
class Union:
    """Corpora that are merged into one."""

    manifest: Manifest
    """Manifest of the new corpus; only the names of its splits are valid."""
    parts: Sequence[Manifest]
    """Manifests of the corpora."""
    corpora: Sequence[Sequence[int]]
    """For each part, the new index of each of its corpora; one index if it names none."""


def unite(
    folders: Sequence[Path],
    parts: Sequence[Manifest],
    sizes: dict[str, int],
    *,
    names: Sequence[str],
    drop_ids: bool,
) -> Union:
    """Compute the union of several corpora.

    Without `names`, either no part names its corpora, or all do and no name occurs twice.
    With them, the documents of a part without names get the part's name, and a corpus "x" of
    a part called "a" becomes "a/x".

    Args:
        folders: folders of the parts, for error messages.
        parts: their manifests.
        sizes: block_tokens and shard_tokens of the new corpus.
        names: a name for each part, or none.
        drop_ids: whether to drop the ids.

    Raises:
        PrepError: fewer than two parts, one part twice, different tokenizers, labels of two
            types, names that clash, or ids in some parts only.
    """
    if len(parts) < 2:
        raise PrepError(f"{folders[0]}: a single corpus cannot be merged; give two or more")
    _check_tokenizers(folders, parts)
    _check_different(folders, parts)
    corpora = _named_corpora(folders, parts, names)
    every = [name for part in corpora for name in part]
    settings: dict[str, JsonValue] = {
        **sizes,
        "merged": [{"fingerprint": part.fingerprint, "settings": part.settings} for part in parts],
    }
    splits = {name: split for part in parts for name, split in part.splits.items()}
    manifest = parts[0].model_copy(
        update={
            "labels": _united_labels(folders, parts),
            "corpora": every,
            "keeps_ids": not drop_ids and _keep_ids(folders, parts),
            "splits": dict(sorted(splits.items())),
            "rejected": sum_counts(part.rejected for part in parts),
            "changed": sum_counts(part.changed for part in parts),
            "settings": settings,
            "source_documents": sum(part.source_documents for part in parts),
        }
    )
    place = count()
    indices = [[next(place) for _ in part] or [0] for part in corpora]
    return Union(manifest, parts, indices)


def _check_tokenizers(folders: Sequence[Path], parts: Sequence[Manifest]) -> None:
    first = parts[0].tokenizer.sha256
    for folder, part in zip(folders, parts, strict=True):
        if part.tokenizer.sha256 != first:
            raise PrepError(
                f"{folder}: its tokenizer has the checksum {part.tokenizer.sha256}, that of "
                f"{folders[0]} has {first}; only corpora with the same tokenizer can be merged"
            )


def _check_different(folders: Sequence[Path], parts: Sequence[Manifest]) -> None:
    seen: dict[str, Path] = {}
    for folder, part in zip(folders, parts, strict=True):
        if part.fingerprint in seen:
            other = seen[part.fingerprint]
            raise PrepError(f"{folder}: is the same corpus as {other} (same fingerprint)")
        seen[part.fingerprint] = folder


def _united_labels(folders: Sequence[Path], parts: Sequence[Manifest]) -> list[str]:
    """Return the labels of all parts, sorted as a build sorts them."""
    kinds = [
        (all(map(_is_number, part.labels)), folder)
        for folder, part in zip(folders, parts, strict=True)
        if part.labels
    ]
    for are_numbers, folder in kinds:
        if are_numbers != kinds[0][0]:
            one, other = ("numbers", "names") if are_numbers else ("names", "numbers")
            raise PrepError(
                f"{folder}: its labels are {one}, those of {kinds[0][1]} are {other}; "
                "all labels of a corpus must have the same type"
            )
    names = (name for part in parts for name in part.labels)
    return sort_labels(names, numbers=bool(kinds) and kinds[0][0])


def _is_number(label: str) -> bool:
    return label.removeprefix("-").isdecimal() and label == str(int(label))


def _named_corpora(
    folders: Sequence[Path], parts: Sequence[Manifest], names: Sequence[str]
) -> list[list[str]]:
    """Return the new names of each part's corpora; empty lists if the new corpus names none."""
    if names and len(names) != len(parts):
        raise PrepError(f"--name is given {len(names)} times for {len(parts)} corpora")
    if names:
        corpora = [
            [f"{name}/{corpus}" for corpus in part.corpora] or [name]
            for name, part in zip(names, parts, strict=True)
        ]
    else:
        corpora = [part.corpora for part in parts]
        with_names = [folder for folder, part in zip(folders, corpora, strict=True) if part]
        without = [folder for folder, part in zip(folders, corpora, strict=True) if not part]
        if with_names and without:
            raise PrepError(
                f"{with_names[0]} names its corpora and {without[0]} does not; "
                "give each a name with --name"
            )
    twice = [name for name, times in Counter(chain(*corpora)).items() if times > 1]
    if twice:
        raise PrepError(
            f"two of the corpora are called {twice[0]!r}; give each corpus its own --name"
        )
    return corpora


def _keep_ids(folders: Sequence[Path], parts: Sequence[Manifest]) -> bool:
    keeping = [folder for folder, part in zip(folders, parts, strict=True) if part.keeps_ids]
    if keeping and len(keeping) < len(parts):
        without = next(folder for folder in folders if folder not in keeping)
        raise PrepError(f"{keeping[0]} keeps ids and {without} does not; drop them with --drop-ids")
    return bool(keeping)
