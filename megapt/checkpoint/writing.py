"""Writing a rank's files of a checkpoint, at once or in the background from a copy in memory."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_prep.files import sync
from megapt.checkpoint.manifest import FileRecord, record_of

Write = Callable[[Path], None]
"""Writes a file of that name."""


class _Watched:
    """A file that remembers why it could not be written: torch raises other errors over it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise


def torch_file(content: Any) -> Write:
    """Return what writes `content` with `torch.save`."""

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            watched = _Watched(file)
            try:
                torch.save(content, watched)  # type: ignore[arg-type]
            except RuntimeError:
                if watched.error is not None:
                    raise watched.error from None
                raise

    return write


def safetensors_file(weights: Mapping[str, Tensor]) -> Write:
    """Return what writes `weights` with safetensors."""

    def write(path: Path) -> None:
        try:
            save_file(dict(weights), path)
        except SafetensorError as error:
            raise OSError(errno.EIO, f"{error}; is the disk full?") from error

    return write


class Writing:
    """This rank's files of one checkpoint, while they are written.

    Args:
        folder: of the files.
        files: name in it -> what writes it.
    """

    def __init__(self, folder: Path, files: Mapping[str, Write]) -> None:
        self._folder = folder
        self._files: dict[str, Write] = dict(files)
        self._thread: Thread | None = None
        self._bug: BaseException | None = None
        self.records: dict[str, FileRecord] = {}
        """What was written."""
        self.problem = ""
        """Why a file could not be written, in one line; empty if all could."""

    def start(self) -> None:
        """Write in the background."""
        self._thread = Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether `finish` would not wait."""
        return self._thread is not None and not self._thread.is_alive()

    def finish(self) -> None:
        """Write now, or wait until all is written."""
        if self._thread is None:
            self._run()
        else:
            self._thread.join()
        if self._bug is not None:
            raise self._bug

    def _run(self) -> None:
        try:
            while self._files:
                name, write = self._files.popitem()
                file = self._folder / name
                write(file)
                del write  # Its content is freed file by file.
                sync(file)
                self.records[name] = record_of(file)
        except OSError as error:
            self._files.clear()
            self.problem = f"{file}: {error.strerror}"
        except BaseException as error:  # told by `finish`, in the thread that can end the run
            self._bug = error
