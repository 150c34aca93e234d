"""The manifest of a checkpoint lists its files. It is written last, and shows what is corrupt."""

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
"""Format in which checkpoints are written. Later versions of megapt may have higher ones.

Format 1 has another row order in fused matrices; see `megapt.model.layout`.
"""
FORMATS = (1, 2)
"""Formats that are read."""


class FileRecord(Section):
    """Expected size and hash of a file."""

    size: NonNegativeInt
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Section):
    """A checkpoint's `checkpoint.json`."""

    format: PositiveInt
    """See `FORMAT`."""
    megapt: str
    """Version of megapt that wrote it."""
    date: str
    """Time at which it was written; ISO 8601, UTC."""
    run: str
    """Digest that identifies the run; see `RunFolder.identity`."""
    step: PositiveInt
    score: float | None
    """Validation score that `checkpoint.keep_best` compares, if there was one."""
    average: bool
    """Whether model.safetensors holds the moving average of the weights."""
    files: dict[str, FileRecord]
    """Size and hash of each file, by name inside the checkpoint."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())


def record_of(file: Path) -> FileRecord:
    """Return the current size and hash of `file`.

    Raises:
        OSError: it cannot be read.
    """
    return FileRecord(size=file.stat().st_size, sha256=sha256_of(file))


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the checkpoint at `path`.

    Raises:
        ValueError: there is none, or it is corrupt.
        ConfigError: another version of megapt wrote it.
    """
    file = path / MANIFEST
    try:
        return parse_manifest(file.read_bytes(), str(path))
    except FileNotFoundError:
        raise ValueError(f"has no {MANIFEST}; corrupt, or of an earlier megapt") from None
    except OSError as error:
        raise ValueError(f"{MANIFEST} cannot be read: {error.strerror}") from None


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Return the manifest in the content of its file.

    Args:
        content: content of the file.
        where: path or URL of the checkpoint, for errors.

    Raises:
        ValueError: it is corrupt.
        ConfigError: another version of megapt wrote it.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        raise ValueError(f"{MANIFEST} is corrupt, or of another version of megapt") from None
    if manifest.format not in FORMATS:
        raise ConfigError(
            f"{where}: was written by megapt {manifest.megapt} in format {manifest.format}; this "
            f"megapt reads the formats {' and '.join(map(str, FORMATS))}"
        )
    return manifest


def publish(hidden: Path, path: Path, manifest: Manifest) -> None:
    """Write the manifest of the checkpoint in `hidden`, and rename the folder to `path`, durably.

    Raises:
        OSError: for example, the disk is full. An earlier checkpoint at `path` is not lost; see
            `restore_replaced`.
    """
    write_json(hidden / MANIFEST, manifest.model_dump())
    for folder, _, _ in os.walk(hidden):  # Each file was flushed when it was written.
        sync(Path(folder))
    replaced = replaced_path(path)
    if path.exists():  # corrupt, or from before a rollback
        path.rename(replaced)
    hidden.rename(path)
    sync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove the checkpoint at `path`. It is never half removed under its name.

    Raises:
        OSError: it cannot be removed.
    """
    removed = path.with_name(f".{path.name}.removed")
    path.rename(removed)
    shutil.rmtree(removed)


def restore_replaced(folder: Path) -> None:
    """Restore under its name each checkpoint whose replacement was killed halfway."""
    for replaced in folder.glob(".step-*.replaced"):
        path = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if not path.exists():
            replaced.rename(path)


def damage(path: Path, manifest: Manifest, rank: int = 0, world: int = 1) -> list[str]:
    """Return the problems of this rank's share of the files, one line each.

    The size and SHA-256 of each file are compared. All shares have about the same number of bytes.
    """
    by_size = sorted(manifest.files, key=lambda name: (manifest.files[name].size, name))
    found = [damage_of(path, name, manifest.files[name]) for name in by_size[rank::world]]
    return [line for line in found if line]


def missing_or_short(path: Path, manifest: Manifest) -> list[str]:
    """Return the problems that the sizes of the files show, one line each, without hashing."""
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
    return f"{name} is corrupt: its sha256 is {digest}, not {record.sha256}"
