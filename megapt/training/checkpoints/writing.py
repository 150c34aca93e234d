"""Writing a rank's files of a checkpoint, at once or in the background from a copy in memory."""

from __future__ import annotations

import copy
import errno
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_prep.files import sync
from megapt.training.checkpoints.manifest import FileRecord, record_of

Write = Callable[[Path], None]
"""Writes a file of that name."""


@contextmanager
def taken_from(engine: Any, *, copying: bool) -> Iterator[dict[str, Any]]:
    """Take what DeepSpeed would write inside, instead of letting it write.

    Only DeepSpeed knows what its files hold. When they are written is decided here: a full disk
    would otherwise raise in one rank in the midst of DeepSpeed's collectives, where the others
    wait for it.

    Args:
        engine: DeepSpeed's.
        copying: whether tensors are copied to host memory, because training goes on meanwhile.

    Yields:
        name of a file -> its content, complete after `engine.save_checkpoint`.
    """
    taken: dict[str, Any] = {}
    own, script = engine.checkpoint_engine, engine._copy_recovery_script
    engine.checkpoint_engine = _Taker(own, taken, copying)
    # A script of DeepSpeed's beside the checkpoints; `megapt checkpoint consolidate` does more.
    engine._copy_recovery_script = lambda folder: None
    try:
        yield taken
    finally:
        engine.checkpoint_engine, engine._copy_recovery_script = own, script


class _Taker:
    """DeepSpeed's checkpoint engine, but for what it writes."""

    def __init__(self, own: Any, taken: dict[str, Any], copying: bool) -> None:
        self._own = own
        self._taken = taken
        self._copying = copying

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """The folder is there already."""

    def save(self, state_dict: Any, path: str) -> None:
        """Take a file's content."""
        self._taken[Path(path).name] = copied(state_dict) if self._copying else state_dict


def copied(value: Any, seen: dict[Any, Tensor] | None = None) -> Any:
    """Return a copy of nested containers that shares nothing with it; tensors in host memory.

    Tensors that are one in `value`, such as tied weights, are one in the copy.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.dtype)
        key = (*place, value.shape, value.stride())
        if value.numel() == 0:
            return value.detach().to("cpu", copy=True)
        if key not in seen:
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if type(value) in (dict, OrderedDict):
        return type(value)((key, copied(item, seen)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(copied(item, seen) for item in value)
    return copy.deepcopy(value)


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
