"""The list of a checkpoint's files, written last: what is whole, and what is damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from data_prep.files import sha256_of, sync
from megapt.checkpoint.state import replaced_path
from megapt.config import Section
from megapt.config.section import NonNegativeInt, PositiveInt
from megapt.errors import ConfigError
from megapt.files import write_json

MANIFEST = "checkpoint.json"
FORMAT = 2
"""Of checkpoints that are written; a higher number is a later version of megapt.

1: the rows of fused matrices lie in another order; see `megapt.model.layout`.
"""
FORMATS = (1, 2)
"""That are read."""


class FileRecord(Section):
    """What a file should be."""

    size: NonNegativeInt
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Section):
    """A checkpoint's `checkpoint.json`."""

    format: PositiveInt
    megapt: str
    """Version that wrote it."""
    date: str
    """When it was written; ISO 8601, UTC."""
    run: str
    """Digest of what makes a run this one: its settings and its corpus."""
    step: PositiveInt
    score: float | None
    """Held-out value that `checkpoint.keep_best` goes by, if there was one."""
    average: bool
    """Whether model.safetensors holds the moving average of the weights."""
    files: dict[str, FileRecord]
    """By name inside the checkpoint."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())


def record_of(file: Path) -> FileRecord:
    """Return what `file` is now.

    Raises:
        OSError: it cannot be read.
    """
    return FileRecord(size=file.stat().st_size, sha256=sha256_of(file))


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the checkpoint at `path`.

    Raises:
        ValueError: there is none, or it is damaged.
        ConfigError: another version of megapt wrote it.
    """
    file = path / MANIFEST
    try:
        return parse_manifest(file.read_bytes(), str(path))
    except FileNotFoundError:
        raise ValueError(f"has no {MANIFEST}; damaged, or of an earlier megapt") from None
    except OSError as error:
        raise ValueError(f"{MANIFEST} cannot be read: {error.strerror}") from None


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Return the manifest in the content of its file, which is that of the checkpoint `where`.

    Raises:
        ValueError: it is damaged.
        ConfigError: another version of megapt wrote it.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        raise ValueError(f"{MANIFEST} is damaged, or of another version of megapt") from None
    if manifest.format not in FORMATS:
        raise ConfigError(
            f"{where}: was written by megapt {manifest.megapt} in format {manifest.format}; this "
            f"megapt reads the formats {' and '.join(map(str, FORMATS))}"
        )
    return manifest


def give_name(hidden: Path, path: Path, manifest: Manifest) -> None:
    """Complete the checkpoint that has grown in `hidden`, and make it appear at `path`, durably.

    Raises:
        OSError: the disk is full, say; what was at `path` is there.
    """
    write_json(hidden / MANIFEST, manifest.model_dump())
    for folder, _, _ in os.walk(hidden):  # The files themselves were flushed one by one.
        sync(Path(folder))
    replaced = replaced_path(path)
    if path.exists():  # damaged, or of a time line that a rollback has left
        path.rename(replaced)
    hidden.rename(path)
    sync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove the checkpoint at `path`; at no moment there is half of it under its name.

    Raises:
        OSError: it cannot be removed.
    """
    removed = path.with_name(f".{path.name}.removed")
    path.rename(removed)
    shutil.rmtree(removed)


def mend(folder: Path) -> None:
    """Give a checkpoint its name back if its replacement was killed in between."""
    for replaced in folder.glob(".step-*.replaced"):
        path = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if not path.exists():
            replaced.rename(path)


def damage(path: Path, manifest: Manifest, rank: int = 0, world: int = 1) -> list[str]:
    """Return what is wrong with this rank's share of the files, one line each.

    Every file's size and SHA-256 are compared; the shares are about equally many bytes.
    """
    by_size = sorted(manifest.files, key=lambda name: (manifest.files[name].size, name))
    found = [damage_of(path, name, manifest.files[name]) for name in by_size[rank::world]]
    return [line for line in found if line]


def missing_or_short(path: Path, manifest: Manifest) -> list[str]:
    """Return what is wrong with the files by their sizes alone, one line each; it takes no time."""
    found = [_size_problem(path, name, record.size) for name, record in manifest.files.items()]
    return [line for line in found if line]


def _size_problem(path: Path, name: str, size: int) -> str:
    try:
        now = (path / name).stat().st_size
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return "" if now == size else f"{name} has {now:,} bytes, not {size:,}"


def damage_of(path: Path, name: str, record: FileRecord) -> str:
    """Return what is wrong with a file of the checkpoint at `path`, in one line, or nothing."""
    if problem := _size_problem(path, name, record.size):
        return problem
    try:
        digest = sha256_of(path / name)
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    if digest == record.sha256:
        return ""
    return f"{name} is damaged: its sha256 is {digest}, not {record.sha256}"
