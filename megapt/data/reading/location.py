"""Where the files of a corpus are, and a corpus whose files lie on this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from data_prep.errors import PrepError
from data_prep.manifest import MANIFEST_NAME, FileInfo, Manifest
from data_prep.shards import check_size, check_sum
from megapt.config import ReadingConfig
from megapt.data.reading.ahead import FetchAhead
from megapt.data.reading.errors import fault_of, kind_of
from megapt.data.reading.hashed import HashedFiles
from megapt.errors import DamagedError


class Location(ABC):
    """The files of one corpus.

    It is made before workers are forked and used in each of them.

    Attributes:
        where: the folder, URL or command as the user wrote it.
    """

    def __init__(self, where: str, reading: ReadingConfig) -> None:
        self.where = where
        self._reading = reading
        self._manifest: Manifest | None = None
        # Half of the cache is for what comes, half for what is being read.
        self._ahead = FetchAhead(self._bring, reading.cache_bytes / 2)

    def manifest(self) -> Manifest:
        """The manifest of the corpus, read when it is first asked for.

        Raises:
            ConfigError: there is none, or it is of another format.
            DamagedError: it is not what `megapt-prep build` wrote.
            UnavailableError: the storage is away.
        """
        if self._manifest is None:
            self._manifest = self._read_manifest()
            self._hashed = HashedFiles(self._manifest.files)
        return self._manifest

    def path(self, info: FileInfo) -> Path:
        """Where a file of the corpus lies on this machine; it is brought there if need be.

        A shard may be removed from the cache as soon as another one is brought; a reader that
        has opened it by then keeps it.

        Raises:
            DamagedFile: the file is missing or damaged, also after all retries.
            UnreachableFile: it is out of reach after all retries.
            DamagedError: the manifest names a file that would lie elsewhere.
            ConfigError: it cannot be kept on this machine, or this process is short of files or
                memory.
            UnavailableError: the disk of the cache is full or away.
        """
        ahead = self._ahead.take(info)
        return self._bring(info) if ahead is None else ahead.result()

    def fetch_ahead(self, reader: object, infos: Sequence[FileInfo]) -> None:
        """Begin to bring files in the background, the first one first.

        They take the place of those that the same reader asked for before. Faults are kept for
        `path`, which raises them. At most half of `cache_bytes` is brought before it is asked
        for.
        """
        self._ahead.ask(reader, infos)

    def close(self) -> None:
        """End what goes on in the background, without waiting for it."""
        self._ahead.close()

    @abstractmethod
    def verify(self, info: FileInfo) -> None:
        """Compare the checksum of a file that lies here; fetched ones were hashed on arrival.

        Raises:
            DamagedFile: the file is missing or damaged.
            UnreachableFile: its storage is away.
            ConfigError: this process is short of files or memory.
        """

    @abstractmethod
    def responds(self) -> bool:
        """Whether the manifest can be read now: a fault is then one of a file, not of all."""

    @abstractmethod
    def _read_manifest(self) -> Manifest: ...

    @abstractmethod
    def _bring(self, info: FileInfo) -> Path:
        """Make a file present and checked; may be called in several threads."""

    def _check(self, path: Path, info: FileInfo) -> None:
        """Check the size of a file and, unless it was done before, its checksum.

        Raises:
            data_prep.errors.DamagedError: it is missing or damaged.
            OSError: it cannot be read.
        """
        self.manifest()  # knows which files have been hashed
        check_size(path, info)
        if info.file not in self._hashed:
            check_sum(path, info)
            self._hashed.add(info.file)


class LocalFolder(Location):
    """A corpus whose files can be mapped where they are."""

    def __init__(self, where: str, folder: Path, reading: ReadingConfig) -> None:
        super().__init__(where, reading)
        self._folder = folder

    def verify(self, info: FileInfo) -> None:
        """Compare the checksum of a file.

        Raises:
            DamagedFile: it is missing or damaged.
            UnreachableFile: its storage is away.
            ConfigError: this process is short of files or memory.
        """
        path = self._folder / checked_name(self.where, info)
        try:
            self._check(path, info)
        except (PrepError, OSError) as error:
            raise fault_of(path, error) from None

    def fetch_ahead(self, reader: object, infos: Sequence[FileInfo]) -> None:
        """Begin to hash files in the background, if they are hashed on use."""
        if self._reading.hashes_on_use:
            super().fetch_ahead(reader, infos)

    def responds(self) -> bool:
        """Whether the folder is there: not on a disk that has gone."""
        return (self._folder / MANIFEST_NAME).exists()

    def _read_manifest(self) -> Manifest:
        try:
            return Manifest.load(self._folder)
        except (PrepError, OSError) as error:
            raise kind_of(error)(str(error)) from None

    def _bring(self, info: FileInfo) -> Path:
        path = self._folder / checked_name(self.where, info)
        try:
            if self._reading.hashes_on_use:
                self._check(path, info)
            else:
                check_size(path, info)
        except (PrepError, OSError) as error:
            raise fault_of(path, error) from None
        return path


def checked_name(where: str, info: FileInfo) -> str:
    """The name of a file.

    Raises:
        DamagedError: it would lead out of the corpus's folder.
    """
    if Path(info.file).name != info.file:
        raise DamagedError(f"{where}: the manifest names {info.file!r}, which is no file name")
    return info.file
