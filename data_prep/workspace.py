"""The folder in which a corpus is written, so that its final folder is either absent or complete.

It also keeps the finished work of an interrupted build. The key of finished work is a hash of
everything that shaped it. A later build therefore finds only work that is right for it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from data_prep.errors import PrepError
from data_prep.files import partial_name, sync, write_atomically

Record = TypeVar("Record", bound=BaseModel)

_LOCK_NAME = "lock"
# Some cluster file systems have no locks. Builds work there, but are not protected from each other.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


def content_key(*parts: Any) -> str:
    """Return a hash of JSON values: the first 40 hexadecimal digits of their SHA-256."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Workspace:
    """The folders of one build."""

    output: Path
    """Path of the finished corpus."""
    root: Path
    """The folder that holds all others; next to `output`, on the same file system."""

    @property
    def corpus(self) -> Path:
        """The unfinished corpus."""
        return self.root / "corpus"

    @property
    def units(self) -> Path:
        """Finished units of work, each a folder named by its key."""
        return self.root / "units"

    @property
    def records(self) -> Path:
        """Records of other finished work, each a file named by its key."""
        return self.root / "records"

    @property
    def replaced(self) -> Path:
        """The previous `output`, for the moment between two renames."""
        return self.root / "replaced"

    def finished(self, key: str, kind: type[Record]) -> Record | None:
        """Return the record of finished work with this key, or None."""
        try:
            return kind.model_validate_json((self.records / f"{key}.json").read_bytes())
        except (FileNotFoundError, ValidationError):  # or it was written by another version
            return None

    def finish(self, key: str, record: BaseModel) -> None:
        """Record finished work under `key`; the record survives a power failure."""
        write_atomically(self.records / f"{key}.json", record.model_dump_json().encode())

    def holds_work(self) -> bool:
        """Return whether at least two units are finished, which is worth keeping."""
        return sum(unit.suffix != ".partial" for unit in self.units.glob("*")) >= 2

    def restore_replaced(self) -> None:
        """Give the replaced corpus its name back, if no other corpus has this name."""
        if self.replaced.exists() and not self.output.exists():
            os.rename(self.replaced, self.output)

    def publish(self, files: set[str]) -> None:
        """Move the corpus to `output`; a corpus that was there is replaced.

        Args:
            files: names of the corpus's files; others remain from an earlier attempt and are
                removed.
        """
        for entry in self.corpus.iterdir():
            if entry.name not in files:
                entry.unlink()
        sync(self.corpus)
        if self.output.exists():
            os.rename(self.output, self.replaced)
        os.rename(self.corpus, self.output)
        sync(self.output.parent)


@contextmanager
def open_workspace(output: Path) -> Iterator[Workspace]:
    """Open the workspace of a build of `output`: the folder `output`.partial.

    It is removed at the end if the corpus was published or fewer than two units are finished.
    Otherwise it stays, also after a SIGKILL, and the next build of `output` resumes from it.

    If `output` is a link, its target is built.

    Raises:
        PrepError: another process is building the same `output`, or it cannot be renamed.
        OSError: the folder is not writable.
    """
    output = Path(os.path.realpath(output))
    if os.path.ismount(output):  # the corpus gets its name by a rename, at the end
        raise PrepError(f"{output}: is a mount point; choose a folder in it for --output")
    if output == Path.cwd():  # the rename would leave the shell in a removed folder
        raise PrepError(f"{output}: is the current folder; choose a folder in it for --output")
    workspace = Workspace(output, partial_name(output))
    with _locked(workspace):
        try:
            _prepare(workspace)
            yield workspace
        finally:
            workspace.restore_replaced()
            if not workspace.corpus.exists() or not workspace.holds_work():
                _empty(workspace.root)
            else:
                print(
                    f"megapt-prep: finished work is kept in {workspace.root}; "
                    "the same command resumes from there",
                    file=sys.stderr,
                )


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """Create the root folder and lock it; remove it at the end if it is empty."""
    try:
        lock = _take_lock(workspace)
        while lock is None:
            lock = _take_lock(workspace)
        with lock:
            yield
    finally:
        # After the lock is closed: NFS keeps a name in the folder for a file that is open.
        with suppress(OSError):
            workspace.root.rmdir()


def _take_lock(workspace: Workspace) -> TextIO | None:
    """Open and lock the lock file; return None if its owner has just removed it or the folder."""
    path = workspace.root / _LOCK_NAME
    workspace.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(open(path, "w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            raise PrepError(
                f"{workspace.output}: another megapt-prep is building this corpus (it works in "
                f"{workspace.root})"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                stack.pop_all()
                return lock
    return None


def _empty(root: Path) -> None:
    """Empty a folder; the lock goes last, so that no other build begins before the end."""
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name == _LOCK_NAME):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _prepare(workspace: Workspace) -> None:
    """Create the folders, and remove incomplete files of a killed build from them."""
    workspace.restore_replaced()  # if a build was killed between the two renames of `publish`
    shutil.rmtree(workspace.replaced, ignore_errors=True)
    for folder in (workspace.corpus, workspace.units, workspace.records):
        folder.mkdir(exist_ok=True)
        for entry in folder.glob("*.partial"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
