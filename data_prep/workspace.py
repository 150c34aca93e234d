"""The folder in which a corpus grows, so that its real folder is either absent or complete.

It also keeps what is finished of an interrupted build. Finished work lies under a key that is
a hash of everything that shaped it; so what a later build finds there is right for it, or is
not found.
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
# Some cluster file systems have no locks; builds work there, only not guarded from each other.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


def content_key(*parts: Any) -> str:
    """A hash of JSON values: 40 hexadecimal digits of their SHA-256."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Workspace:
    """The folders of one build.

    Attributes:
        output: what the finished corpus will be called.
        root: the folder that holds all others; beside `output`, on the same file system.
    """

    output: Path
    root: Path

    @property
    def corpus(self) -> Path:
        """The growing corpus."""
        return self.root / "corpus"

    @property
    def units(self) -> Path:
        """Finished units of work, each a folder under its key."""
        return self.root / "units"

    @property
    def records(self) -> Path:
        """Accounts of other finished work, each a file under its key."""
        return self.root / "records"

    @property
    def replaced(self) -> Path:
        """What `output` was before, for the moment between two renames."""
        return self.root / "replaced"

    def finished(self, key: str, kind: type[Record]) -> Record | None:
        """What was recorded under `key`, if anything was."""
        try:
            return kind.model_validate_json((self.records / f"{key}.json").read_bytes())
        except (FileNotFoundError, ValidationError):  # or written by another version
            return None

    def finish(self, key: str, record: BaseModel) -> None:
        """Record finished work under `key`; it survives a power cut."""
        write_atomically(self.records / f"{key}.json", record.model_dump_json().encode())

    def holds_work(self) -> bool:
        """Whether enough is finished to be worth keeping for a later build: two units."""
        return sum(unit.suffix != ".partial" for unit in self.units.glob("*")) >= 2

    def give_back(self) -> None:
        """Give the corpus that was to be replaced its name again, if nothing has got it yet."""
        if self.replaced.exists() and not self.output.exists():
            os.rename(self.replaced, self.output)

    def publish(self, files: set[str]) -> None:
        """Give the corpus its name. What was there before under this name is removed.

        Args:
            files: names of the corpus's files; others are leavings of an earlier attempt.
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
    """The workspace of a build of `output`: `output`.partial.

    It is removed at the end if the corpus was published or hardly anything in it was finished.
    Otherwise it stays, also after a SIGKILL, and the next build of `output` goes on from it.

    If `output` is a link, what it points to is built.

    Raises:
        PrepError: another process is building the same `output`, or it cannot be renamed.
        OSError: the place cannot be written.
    """
    output = Path(os.path.realpath(output))
    if os.path.ismount(output):  # the corpus gets its name by a rename, at the very end
        raise PrepError(f"{output}: is where a disk is mounted; choose a folder in it for --output")
    if output == Path.cwd():  # its owner would be left in one that has been removed
        raise PrepError(f"{output}: is the current folder; choose one in it for --output")
    workspace = Workspace(output, partial_name(output))
    with _locked(workspace):
        try:
            _prepare(workspace)
            yield workspace
        finally:
            workspace.give_back()
            if not workspace.corpus.exists() or not workspace.holds_work():
                _empty(workspace.root)
            else:
                print(
                    f"megapt-prep: finished work is kept in {workspace.root}; "
                    "the same command goes on from there",
                    file=sys.stderr,
                )


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """Make the root folder and keep all others out of it; an empty one is removed at the end."""
    try:
        lock = _take_lock(workspace)
        while lock is None:
            lock = _take_lock(workspace)
        with lock:
            yield
    finally:
        # Not before the lock is closed: of an open file, NFS keeps a name in the folder.
        with suppress(OSError):
            workspace.root.rmdir()


def _take_lock(workspace: Workspace) -> TextIO | None:
    """The lock file, locked; None if its owner has just removed it, or the folder."""
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
    """Remove all in a folder; last the lock, so that no other build begins in the midst of it."""
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name == _LOCK_NAME):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _prepare(workspace: Workspace) -> None:
    """Make the folders, and remove what a killed build left half-written in them."""
    workspace.give_back()  # if it was killed between the two renames of `publish`
    shutil.rmtree(workspace.replaced, ignore_errors=True)
    for folder in (workspace.corpus, workspace.units, workspace.records):
        folder.mkdir(exist_ok=True)
        for entry in folder.glob("*.partial"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
