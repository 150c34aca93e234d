"""Identifies the content of the input files, so that finished work is reused only for it."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from data_prep.errors import PrepError
from data_prep.execution import Context, Executor
from data_prep.files import CHUNK_BYTES
from data_prep.inputs import SourceFile
from data_prep.inputs.places import local_stamp
from data_prep.progress import ByteProgress

PIECE_BYTES = 64 << 20


class InputFile(BaseModel):
    """An input file as it was when the corpus was built."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Name relative to the path that the user gave."""
    bytes: int
    """Size of the file."""
    digest: str
    """For a local file, its SHA-256; above 64 MiB, the SHA-256 of the SHA-256s of its pieces of
    64 MiB, which many processes can compute in parallel. For a remote file, its tag or time of
    change, after the word "stamp"."""


@dataclass(frozen=True)
class _Piece:
    """Bytes [start, stop) of a local file, which is number `file` of the input."""

    file: int
    path: Path
    start: int
    stop: int


def identify(files: Sequence[SourceFile], executor: Executor) -> list[InputFile]:
    """Describe the input files; reads every local file once.

    Raises:
        OSError: a file cannot be read.
    """
    tasks = list(_batches(_pieces(files)))
    digests: list[list[str]] = [[] for _ in tasks]
    total = sum(file.bytes for file in files)
    done = executor.map(_Hasher, (), tasks)
    with ByteProgress("hash input", total) as progress, closing(done) as results:
        for index, found in results:
            digests[index] = found
            progress.advance(sum(piece.stop - piece.start for piece in tasks[index]))
    pieces = [
        (piece.file, digest)
        for task, found in zip(tasks, digests, strict=True)
        for piece, digest in zip(task, found, strict=True)
    ]
    of_file = {
        file: [digest for _, digest in group]
        for file, group in groupby(pieces, lambda pair: pair[0])
    }
    return [
        InputFile(
            name=file.name,
            bytes=file.bytes,
            digest=_joined(of_file[number]) if number in of_file else f"stamp {file.stamp}",
        )
        for number, file in enumerate(files)
    ]


def check_unchanged(files: Sequence[SourceFile]) -> None:
    """Check that no local file was changed since it was found.

    Raises:
        PrepError: a file was changed.
    """
    for file in files:
        if not file.is_remote:
            status = Path(file.path).stat()
            if (status.st_size, local_stamp(status)) != (file.bytes, file.stamp):
                raise PrepError(f"{file.path}: changed while it was read; build again")


def _pieces(files: Sequence[SourceFile]) -> Iterator[_Piece]:
    for number, file in enumerate(files):
        if not file.is_remote:
            for start in range(0, max(file.bytes, 1), PIECE_BYTES):
                stop = min(start + PIECE_BYTES, file.bytes)
                yield _Piece(number, Path(file.path), start, stop)


def _batches(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    held = 0
    for piece in pieces:
        batch.append(piece)
        held += piece.stop - piece.start
        if held >= PIECE_BYTES or len(batch) == 1000:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _joined(digests: Sequence[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


class _Hasher:
    """Computes the SHA-256 of pieces of files."""

    def __call__(self, pieces: Sequence[_Piece], context: Context) -> list[str]:
        return [self._digest(piece) for piece in pieces]

    def _digest(self, piece: _Piece) -> str:
        digest = hashlib.sha256()
        with open(piece.path, "rb") as file:
            file.seek(piece.start)
            left = piece.stop - piece.start
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
        return digest.hexdigest()
