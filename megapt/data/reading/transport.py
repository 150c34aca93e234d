"""Transfers of remote files, with a timeout that holds for every transport.

Each transport can stall in its own way, and not all have timeouts. So each transfer runs in a
thread that passes its chunks through a queue, and the reader waits for a chunk only until the
timeout. The threads are daemons: one that hangs does not keep its process from ending.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import suppress
from importlib import import_module
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Protocol

from data_prep.inputs.optional import load_optional
from data_prep.inputs.remote import file_system, is_http, refuses, unreadable
from megapt.data.reading.errors import DamagedFile, TransferError, fault_of, is_shortage

PIPE = "pipe:"

_CHUNK_BYTES = 1 << 20
_RANGE_BYTES = 4 << 20
"""Bytes per request to an object store: few requests, but regular progress on a slow line."""
_NO_COMMAND = (126, 127)
"""Exit codes of a shell for a command that it cannot run or does not find."""
_CHUNKS_AHEAD = 2
"""Chunks that a transfer may be ahead of its reader."""


class Stream(Protocol):
    """The bytes of a file, from first to last."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end.

        Raises:
            Exception: if the transfer has failed; each transport has its own errors.
        """

    def close(self) -> None:
        """End the transfer; may be called from another thread while `read` waits."""


def prepare(url: str) -> None:
    """Import the packages that `url` needs, so that no timeout includes an import.

    Forked processes inherit them.

    Raises:
        PrepError: if a package for the URL's protocol is not installed.
    """
    if url.startswith(PIPE):
        import_module("webdataset.gopen")
    else:
        file_system(url)
        if is_http(url):
            load_optional("aiohttp", "remote", url)


def receive(url: str, timeout: float) -> Generator[bytes, None, None]:
    """Yield the content of a file in chunks; close the generator to cancel the transfer.

    Args:
        url: an fsspec URL, or `pipe:` and a shell command that writes the file to its output.
        timeout: seconds without a byte after which the transfer fails.

    Raises:
        TransferError: if the file cannot be opened, or its transfer broke or stalled; with the
            fault `DamagedFile` if the store answers that the file does not exist or that access
            is denied.
        ConfigError: if this process is short of file handles or memory.
    """
    transfer = _Transfer(url, timeout)
    try:
        while chunk := transfer.next_chunk():
            yield chunk
    finally:
        transfer.abort()


class _Transfer:
    """A running transfer; the public methods are for the thread that reads its chunks."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._chunks: Queue[bytes | Exception] = Queue(_CHUNKS_AHEAD)
        self._aborted = Event()
        self._stream: Stream | None = None
        Thread(target=self._run, name=f"transfer of {url}", daemon=True).start()

    def next_chunk(self) -> bytes:
        """Return the next bytes; none at the end, which the transport has confirmed."""
        try:
            chunk = self._chunks.get(timeout=self._timeout)
        except Empty:
            raise TransferError(f"{self._url}: no byte for {self._timeout:g} s") from None
        if isinstance(chunk, FileNotFoundError):
            raise TransferError(f"{self._url}: no such file, but the corpus needs it", DamagedFile)
        if isinstance(chunk, Exception):
            if is_shortage(chunk):
                raise fault_of(self._url, chunk)
            text = str(unreadable(self._url, chunk))
            if refuses(chunk) or isinstance(chunk, ChildProcessError):
                raise TransferError(text, DamagedFile)
            raise TransferError(text)
        return chunk

    def abort(self) -> None:
        """Let the thread end as soon as it can, at once if the transfer is over."""
        self._aborted.set()
        if self._stream is not None:
            with suppress(Exception):  # nobody needs this transfer any longer
                self._stream.close()

    def _run(self) -> None:
        try:
            self._stream = stream = open_stream(self._url, self._timeout)
            try:
                while not self._aborted.is_set() and (chunk := stream.read(_CHUNK_BYTES)):
                    self._put(chunk)
            finally:
                stream.close()
            self._put(b"")
        except Exception as error:
            self._put(error)

    def _put(self, chunk: bytes | Exception) -> None:
        pending = True
        while pending and not self._aborted.is_set():
            with suppress(Full):
                self._chunks.put(chunk, timeout=0.1)
                pending = False


def open_stream(url: str, timeout: float) -> Stream:
    """Open a URL in the calling process and thread; see `receive`.

    The file system is requested from fsspec each time, which caches one per process: a forked
    child cannot use the connections and the event loop of its parent.
    """
    if url.startswith(PIPE):
        return _Command(url.removeprefix(PIPE))
    system = file_system(url)
    stream: Stream
    if is_http(url):
        aiohttp = load_optional("aiohttp", "remote", url)
        # One request, with a limit on silence only. A given size saves the request for the size.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        options = {"size": 1, "timeout": limits, "read_bufsize": _CHUNK_BYTES}
        stream = system.open(url, "rb", block_size=0, **options)
    else:
        stream = _Ranges(system.open(url, "rb", block_size=_RANGE_BYTES, cache_type="none"))
    return stream


class _Ranges:
    """A file of an object store, requested one range after another."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.close = file.close

    def read(self, size: int) -> bytes:
        """Return the next range, whatever `size` is."""
        data: bytes = self._file.read(_RANGE_BYTES)
        return data


class _Command:
    """The output of a shell command, through the pipe of webdataset.

    The command runs in its own session, so that all its processes can be killed together.
    """

    def __init__(self, command: str) -> None:
        from webdataset.gopen import Pipe
        from webdataset.utils import enforce_security

        if enforce_security:
            raise PermissionError("WDS_SECURE is set, which forbids commands")
        # Unbuffered, so that the output is available at once.
        self._pipe: Any = Pipe(
            command, mode="rb", shell=True, bufsize=0, ignore_errors=True, start_new_session=True
        )
        self._process: subprocess.Popen[bytes] = self._pipe.proc

    def read(self, size: int) -> bytes:
        """Return the next output of the command.

        Raises:
            ChildProcessError: if the shell finds no such command, or cannot run it.
            OSError: if the command has ended with a status other than 0.
        """
        data: bytes = self._process.stdout.read(size)  # type: ignore[union-attr]
        if not data and (status := self._process.wait()):
            kind = ChildProcessError if status in _NO_COMMAND else OSError
            raise kind(f"the command ended with status {status}")
        return data

    def close(self) -> None:
        """Kill all processes of the command, unless it has ended and `read` has seen it."""
        # Until its status is collected, no other process can get its id.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
