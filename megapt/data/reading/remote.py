"""A remote corpus: files are fetched into a cache, with retries."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from data_prep.errors import PrepError
from data_prep.inputs.remote import is_http
from data_prep.manifest import MANIFEST_NAME, FileInfo, Manifest
from megapt.config import ReadingConfig
from megapt.data.reading.cache import make_cache, unwritable
from megapt.data.reading.errors import (
    DamagedFile,
    TransferError,
    fault_of,
    is_shortage,
    kind_of,
    log,
    without_advice,
)
from megapt.data.reading.location import Location, checked_name
from megapt.data.reading.locks import holding
from megapt.data.reading.retries import longest_pause, with_retries
from megapt.data.reading.transport import PIPE, prepare, receive
from megapt.errors import ConfigError


class Remote(Location):
    """A corpus whose files are fetched when they are needed, and kept in a cache."""

    def __init__(self, where: str, reading: ReadingConfig) -> None:
        super().__init__(where, reading)
        if where.startswith(PIPE) and "{}" not in where:
            raise ConfigError(f"{where}: should have {{}} where the name of a file goes")
        try:
            prepare(where)
        except PrepError as error:
            raise ConfigError(str(error)) from None
        self._closed = False
        # A process that fetches reports progress at least after each attempt and each pause.
        self._patience = 2 * (reading.timeout + longest_pause(reading))
        self._cache = make_cache(reading, self._patience)

    def verify(self, info: FileInfo) -> None:
        """Do nothing: fetched files are hashed on arrival."""

    def responds(self) -> bool:
        """Return whether the manifest can be fetched, after one attempt."""
        try:
            self._fetch_manifest()
        except TransferError:
            return False
        return True

    def close(self) -> None:
        """End the work in the background, without waiting for it."""
        self._closed = True
        super().close()

    def _read_manifest(self) -> Manifest:
        return with_retries(self._fetch_manifest, MANIFEST_NAME, self._reading)

    def _fetch_manifest(self) -> Manifest:
        url = self._url(MANIFEST_NAME)
        try:
            with closing(receive(url, self._reading.timeout)) as chunks:
                data = b"".join(chunks)
            return Manifest.parse(data, url)
        except TransferError as error:
            if error.fault is DamagedFile:  # There is no corpus here.
                raise TransferError(str(error), ConfigError) from None
            raise
        except PrepError as error:  # may be a fault of the transfer
            raise TransferError(without_advice(error), kind_of(error)) from None

    def _bring(self, info: FileInfo) -> Path:
        path = self._cache.place(self.manifest().fingerprint, checked_name(self.where, info))
        lock = path.with_name(f"{path.name}.lock")
        try:
            if self._fault(path, info):
                with holding(lock, self._patience) as progress:
                    # Another process may have fetched it while this one waited.
                    if fault := self._fault(path, info):
                        if path.exists():
                            log.warning("%s; fetching it again", fault)
                        self._fetch(path, info, progress)
                        self._hashed.add(info.file)
        except OSError as error:
            raise unwritable(path, info, error) from None
        return path

    def _fault(self, path: Path, info: FileInfo) -> str:
        """Return the fault of a file in the cache; "" for an intact one, which is marked as used.

        A corrupt file stays until it is replaced: removing it by name could remove the intact
        file that another process has put there in the meantime.

        Raises:
            ConfigError: if this process is short of file handles or memory.
        """
        try:
            self._check(path, info)
        except PrepError as error:
            return without_advice(error)
        except OSError as error:
            if is_shortage(error):
                raise fault_of(path, error) from None
            return str(error)
        with suppress(OSError):  # a read-only cache, or a file of another user
            os.utime(path)
        return ""

    def _fetch(self, path: Path, info: FileInfo, progress: Callable[[], None]) -> None:
        url = self._url(info.file)

        def chunks() -> Generator[bytes, None, None]:
            progress()
            with closing(receive(url, self._reading.timeout)) as received:
                for chunk in received:
                    if self._closed:
                        raise CancelledError(f"{url}: canceled, because its reader was closed")
                    progress()
                    yield chunk

        with_retries(lambda: self._cache.write(path, info, url, chunks), info.file, self._reading)

    def _url(self, file: str) -> str:
        if self.where.startswith(PIPE):
            return self.where.replace("{}", shlex.quote(file))
        if is_http(self.where):  # The query, a signature for example, stays last.
            parts = urlsplit(self.where)
            return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(file)}").geturl()
        return f"{self.where.rstrip('/')}/{file}"
