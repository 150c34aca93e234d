"""Writes a rank's files of a checkpoint, at once or in the background from a copy in memory."""

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
"""Writes a file with this path."""


class _FileWithError:
    """A file that keeps the OSError of a failed write, which torch replaces by a RuntimeError."""

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
        """Hand buffered data to the system."""
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise


def torch_file(content: Any) -> Write:
    """Return a function that writes `content` with `torch.save`."""

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            keeping = _FileWithError(file)
            try:
                torch.save(content, keeping)  # type: ignore[arg-type]
            except RuntimeError:
                if keeping.error is not None:
                    raise keeping.error from None
                raise

    return write


def safetensors_file(weights: Mapping[str, Tensor]) -> Write:
    """Return a function that writes `weights` with safetensors."""

    def write(path: Path) -> None:
        try:
            save_file(dict(weights), path)
        except SafetensorError as error:
            raise OSError(errno.EIO, f"{error}; is the disk full?") from error

    return write


class Writing:
    """This rank's files of one checkpoint, while they are written.

    Args:
        folder: folder of the files.
        files: name in it -> function that writes the file.
    """

    def __init__(self, folder: Path, files: Mapping[str, Write]) -> None:
        self._folder = folder
        self._files: dict[str, Write] = dict(files)
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self.records: dict[str, FileRecord] = {}
        """Size and hash of each written file, by name."""
        self.problem = ""
        """Why a file could not be written, in one line; empty if all could."""

    def start(self) -> None:
        """Write in the background."""
        self._thread = Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether `finish` returns without waiting."""
        return self._thread is not None and not self._thread.is_alive()

    def finish(self) -> None:
        """Write the files now, or wait until the background thread has written them."""
        if self._thread is None:
            self._run()
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._files:
                name, write = self._files.popitem()
                file = self._folder / name
                write(file)
                del write  # Frees its content before the next file.
                sync(file)
                self.records[name] = record_of(file)
        except OSError as error:
            self._files.clear()
            self.problem = f"{file}: {error.strerror}"
        except BaseException as error:  # `finish` raises it in the main thread.
            self._error = error
