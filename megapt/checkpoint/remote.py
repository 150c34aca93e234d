"""Copies checkpoints to another folder or an object store and back, through fsspec."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_prep.errors import PrepError
from data_prep.inputs.optional import load_optional
from data_prep.inputs.remote import file_system, refuses, unreadable
from megapt.checkpoint.keeping import kept
from megapt.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    damage,
    parse_manifest,
    publish,
)
from megapt.checkpoint.state import checkpoint_path, hidden_path, step_of
from megapt.config import CheckpointConfig
from megapt.errors import ConfigError, DamagedError, MegaptError, UnavailableError

_TRANSFERS = 8
"""Files that are transferred at the same time."""


class Copies:
    """The copies of a run's checkpoints at `checkpoint.copy_to`.

    A copy is complete if it has its manifest, which is written last and removed first.

    Args:
        where: folder or URL.

    Raises:
        ConfigError: the URL's protocol is unknown, or a package for it is missing.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        try:
            self._system: Any = file_system(where)
            fsspec = load_optional("fsspec", "remote", where)
        except PrepError as error:
            raise ConfigError(f"checkpoint.copy_to: {error}") from None
        self._root = fsspec.core.url_to_fs(where)[1].rstrip("/")

    def steps(self) -> list[int]:
        """Return the steps of all complete copies, ascending.

        Raises:
            Exception: the location cannot be read; each file system has its own errors.
        """
        self._system.invalidate_cache()
        try:
            names = self._system.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        steps = [step_of(name.rstrip("/").rpartition("/")[2]) for name in names]
        return sorted(
            step for step in steps if step and self._system.exists(self._at(step, MANIFEST))
        )

    def put(self, path: Path, step: int, manifest: Manifest) -> None:
        """Copy the checkpoint at `path`.

        Raises:
            Exception: it cannot be written.
        """
        self.remove(step)
        for folder in {self._at(step, name).rpartition("/")[0] for name in manifest.files}:
            self._system.makedirs(folder, exist_ok=True)
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            for done in [
                pool.submit(self._system.put_file, str(path / name), self._at(step, name))
                for name in manifest.files
            ]:
                done.result()
        self._system.put_file(str(path / MANIFEST), self._at(step, MANIFEST))

    def get(self, step: int, path: Path) -> None:
        """Fetch a copy to `path`, where it appears once it is complete and verified.

        Raises:
            ValueError: it is corrupt.
            Exception: it cannot be read.
        """
        manifest = self._manifest(step)
        hidden = hidden_path(path)
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in {(hidden / name).parent for name in manifest.files}:
            folder.mkdir(parents=True)
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            for done in [
                pool.submit(self._system.get_file, self._at(step, name), str(hidden / name))
                for name in manifest.files
            ]:
                done.result()
        if problems := damage(hidden, manifest):
            raise ValueError(problems[0])
        publish(hidden, path, manifest)

    def owner(self) -> str | None:
        """Return the run of the newest copy with a readable manifest; None if there is none.

        Raises:
            ConfigError: another version of megapt wrote it, or access is denied.
            DamagedError: a file of it is missing.
            UnavailableError: the location cannot be read.
        """
        try:
            for step in reversed(self.steps()):
                with suppress(ValueError):
                    return self._manifest(step).run
        except MegaptError:
            raise
        except Exception as error:  # Each file system has its own errors.
            raise self._unreadable(error) from error
        return None

    def fetch(self, folder: Path) -> dict[int, str]:
        """Fetch the newest intact copy, if there is one, to its name in `folder`.

        Returns:
            Step of each newer copy that was skipped -> what is wrong with it.

        Raises:
            ConfigError: another version of megapt wrote it, or access is denied.
            DamagedError: a file of it is missing.
            UnavailableError: the location cannot be read.
        """
        skipped: dict[int, str] = {}
        try:
            for step in reversed(self.steps()):
                try:
                    self.get(step, checkpoint_path(folder, step))
                    break
                except ValueError as error:
                    skipped[step] = str(error)
        except MegaptError:
            raise
        except Exception as error:  # Each file system has its own errors.
            raise self._unreadable(error) from error
        return skipped

    def prune(self, config: CheckpointConfig, newest: int) -> None:
        """Remove the copies that the policy does not keep.

        Args:
            config: the retention policy.
            newest: step of the newest checkpoint of the run; later copies are left as they are.

        Raises:
            Exception: the location cannot be read or written.
        """
        scores = {step: self._manifest(step).score for step in self.steps() if step <= newest}
        for step in scores.keys() - kept(scores, config).keys():
            self.remove(step)

    def remove(self, step: int) -> None:
        """Remove the copy of a step, if there is one.

        Raises:
            Exception: it cannot be removed.
        """
        if self._system.exists(self._at(step, MANIFEST)):
            self._system.rm_file(self._at(step, MANIFEST))
        if self._system.exists(self._at(step)):
            self._system.rm(self._at(step), recursive=True)

    def _unreadable(self, error: Exception) -> MegaptError:
        kind: type[MegaptError] = UnavailableError
        if isinstance(error, FileNotFoundError):  # The manifest names the file.
            kind = DamagedError
        elif refuses(error):
            kind = ConfigError
        return kind(f"checkpoint.copy_to: {unreadable(self.where, error)}")

    def _manifest(self, step: int) -> Manifest:
        return parse_manifest(self._system.cat_file(self._at(step, MANIFEST)), self._at(step))

    def _at(self, step: int, name: str = "") -> str:
        folder = f"{self._root}/{checkpoint_path(Path(), step).name}"
        return f"{folder}/{name}" if name else folder


class Copier:
    """Copies one checkpoint after another, in the background or at once.

    If copying is slower than saving, only the newest waiting checkpoint is copied.

    Args:
        copies: destination.
        config: the retention policy of the copies.
        asynchronous: whether to copy in the background.
        on_failure: called with the step and one line of text if a copy has failed; in any thread.
    """

    def __init__(
        self,
        copies: Copies,
        config: CheckpointConfig,
        asynchronous: bool,
        on_failure: Callable[[int, str], None],
    ) -> None:
        self._copies = copies
        self._config = config
        self._asynchronous = asynchronous
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._next: tuple[int, Path, Manifest] | None = None
        self._thread: threading.Thread | None = None
        self._copying = 0

    def copy(self, step: int, path: Path, manifest: Manifest) -> None:
        """Copy the checkpoint at `path`, now or in the background."""
        with self._lock:
            self._next = (step, path, manifest)
            if self._thread is not None:
                return  # The thread takes this one next.
            self._thread = threading.Thread(target=self._run, name="copies", daemon=True)
            self._thread.start()
        if not self._asynchronous:
            self.finish()

    @property
    def busy(self) -> set[int]:
        """Steps whose files are still needed."""
        with self._lock:
            waiting = {self._next[0]} if self._next else set()
            return waiting | ({self._copying} if self._copying else set())

    def finish(self) -> None:
        """Wait until everything is copied."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._next is None:
                    self._thread, self._copying = None, 0
                    return
                (step, path, manifest), self._next = self._next, None
                self._copying = step
            try:
                self._copies.put(path, step, manifest)
                self._copies.prune(self._config, step)
            except Exception as error:  # Each file system has its own errors.
                line = str(error).strip().partition("\n")[0]
                self._on_failure(step, f"{self._copies.where}: {type(error).__name__}: {line}")
