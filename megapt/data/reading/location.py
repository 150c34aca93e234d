"""The location of a corpus, and the one whose files are on this machine."""

from __future__ import annotations

import os
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

    It is created before workers are forked and used in each of them.
    """

    def __init__(self, where: str, reading: ReadingConfig) -> None:
        self.where = where
        """The folder, URL or command as the user wrote it."""
        self._reading = reading
        self._manifest: Manifest | None = None
        # Half of the cache is for prefetched files, half for those that are being read.
        self._ahead = FetchAhead(self._bring, reading.cache_bytes / 2)

    def manifest(self) -> Manifest:
        """Return the manifest of the corpus; the first call reads it.

        Raises:
            ConfigError: if there is none, or it has another format.
            DamagedError: if it is not what `megapt-prep build` wrote.
            UnavailableError: if the storage is unavailable.
        """
        if self._manifest is None:
            self._manifest = self._read_manifest()
            self._hashed = HashedFiles(self._manifest.files)
        return self._manifest

    def path(self, info: FileInfo) -> Path:
        """Return the local path of a file of the corpus; fetch the file if necessary.

        The cache may evict a shard as soon as another one is fetched; a reader that has already
        opened it can still read it.

        Raises:
            DamagedFile: if the file is missing or corrupt after all retries.
            UnreachableFile: if it is out of reach after all retries.
            DamagedError: if the manifest names a file outside of the corpus.
            ConfigError: if it cannot be kept on this machine, or this process is short of file
                handles or memory.
            UnavailableError: if the disk of the cache is full or unavailable.
        """
        ahead = self._ahead.take(info)
        return self._bring(info) if ahead is None else ahead.result()

    def fetch_ahead(self, reader: object, infos: Sequence[FileInfo]) -> None:
        """Begin to fetch files in the background, in this order.

        They replace the earlier requests of the same reader. `path` raises the errors of these
        transfers. At most half of `cache_bytes` is fetched ahead.
        """
        self._ahead.request(reader, infos)

    def close(self) -> None:
        """End the work in the background, without waiting for it."""
        self._ahead.close()

    @abstractmethod
    def verify(self, info: FileInfo) -> None:
        """Check the checksum of a local file; fetched files were hashed on arrival.

        Raises:
            DamagedFile: if the file is missing or corrupt.
            UnreachableFile: if its storage is unavailable.
            ConfigError: if this process is short of file handles or memory.
        """

    @abstractmethod
    def responds(self) -> bool:
        """Return whether the manifest can be read now, so that a fault concerns one file only."""

    @abstractmethod
    def _read_manifest(self) -> Manifest: ...

    @abstractmethod
    def _bring(self, info: FileInfo) -> Path:
        """Make a file present, check it and return its path; may run in several threads."""

    def _check(self, path: Path, info: FileInfo) -> None:
        """Check the size of a file and, unless it was done before, its checksum.

        Raises:
            data_prep.errors.DamagedError: if it is missing or corrupt.
            OSError: if it cannot be read.
        """
        self.manifest()  # creates `_hashed`
        check_size(path, info)
        if info.file not in self._hashed:
            check_sum(path, info)
            self._hashed.add(info.file)


class LocalFolder(Location):
    """A corpus in a local folder, whose files are mapped in place."""

    def __init__(self, where: str, folder: Path, reading: ReadingConfig) -> None:
        super().__init__(where, reading)
        self._folder = folder

    def verify(self, info: FileInfo) -> None:
        """Check the checksum of a file.

        Raises:
            DamagedFile: if it is missing or corrupt.
            UnreachableFile: if its storage is unavailable.
            ConfigError: if this process is short of file handles or memory.
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
        """Return whether the folder is there, so that its disk is available."""
        return os.path.exists(self._folder / MANIFEST_NAME)  # `Path.exists` may raise

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
    """Return the name of a file.

    Raises:
        DamagedError: if it would lead out of the corpus's folder.
    """
    if Path(info.file).name != info.file:
        raise DamagedError(f"{where}: the manifest names {info.file!r}, which is not a file name")
    return info.file
