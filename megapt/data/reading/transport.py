"""The bytes of a file that is elsewhere, under a watch that no transport can escape.

Transports stall in ways of their own, and not all of them know timeouts. So each transfer runs in
a thread that hands over its chunks, and whoever waits for them waits only so long. The threads
are daemons: one that never wakes again does not keep its process from ending.
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
"""Asked of an object store at once: few requests, and still signs of life on a slow line."""
_NO_COMMAND = (126, 127)
"""What a shell ends with for a command that it cannot run, or does not find."""
_CHUNKS_AHEAD = 2
"""Chunks that a transfer may be ahead of who writes them down."""


class Stream(Protocol):
    """What a transport gives: bytes from the first to the last."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            Exception: the transfer has failed; each transport has errors of its own.
        """

    def close(self) -> None:
        """End the transfer, also from another thread while `read` waits."""


def prepare(url: str) -> None:
    """Import what `url` needs: forked processes inherit it, and no timeout counts the import.

    Raises:
        PrepError: a package for the URL's protocol is not installed.
    """
    if url.startswith(PIPE):
        import_module("webdataset.gopen")
    else:
        file_system(url)
        if is_http(url):
            load_optional("aiohttp", "remote", url)


def receive(url: str, timeout: float) -> Generator[bytes, None, None]:
    """The content of a file, in chunks. Close the generator to give the transfer up.

    Args:
        url: an fsspec URL, or `pipe:` and a shell command that writes the file to its output.
        timeout: seconds without a byte after which the transfer is given up.

    Raises:
        TransferError: the file cannot be opened, its transfer broke or stalled; with the fault
            `DamagedFile` if the store has answered that it is not there, or not for us.
        ConfigError: this process is short of files or memory.
    """
    transfer = _Transfer(url, timeout)
    try:
        while chunk := transfer.next_chunk():
            yield chunk
    finally:
        transfer.abort()


class _Transfer:
    """A running transfer, seen from the thread that waits for its chunks."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._chunks: Queue[bytes | Exception] = Queue(_CHUNKS_AHEAD)
        self._given_up = Event()
        self._stream: Stream | None = None
        Thread(target=self._run, name=f"transfer of {url}", daemon=True).start()

    def next_chunk(self) -> bytes:
        """The next bytes; none at the end, when the transport has confirmed that it is the end."""
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
        """Let the thread end as soon as it can; at once if the transfer is over."""
        self._given_up.set()
        if self._stream is not None:
            with suppress(Exception):  # of a transfer that nobody waits for any longer
                self._stream.close()

    def _run(self) -> None:
        try:
            self._stream = stream = open_stream(self._url, self._timeout)
            try:
                while not self._given_up.is_set() and (chunk := stream.read(_CHUNK_BYTES)):
                    self._hand_over(chunk)
            finally:
                stream.close()
            self._hand_over(b"")
        except Exception as error:
            self._hand_over(error)

    def _hand_over(self, chunk: bytes | Exception) -> None:
        waits = True
        while waits and not self._given_up.is_set():
            with suppress(Full):
                self._chunks.put(chunk, timeout=0.1)
                waits = False


def open_stream(url: str, timeout: float) -> Stream:
    """Open a URL in the calling process and thread; see `receive`.

    File systems are asked for anew each time: fsspec keeps one for each process, and makes
    another one in the child of a fork, where the connections and the event loop of its parent
    are of no use.
    """
    if url.startswith(PIPE):
        return _Command(url.removeprefix(PIPE))
    system = file_system(url)
    stream: Stream
    if is_http(url):
        aiohttp = load_optional("aiohttp", "remote", url)
        # One request, and no limit but for silence. To be told a size spares the question for it.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        options = {"size": 1, "timeout": limits, "read_bufsize": _CHUNK_BYTES}
        stream = system.open(url, "rb", block_size=0, **options)
    else:
        stream = _Ranges(system.open(url, "rb", block_size=_RANGE_BYTES, cache_type="none"))
    return stream


class _Ranges:
    """A file of an object store, which is asked for one range after another."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.close = file.close

    def read(self, size: int) -> bytes:
        """The next range, whatever `size` is."""
        data: bytes = self._file.read(_RANGE_BYTES)
        return data


class _Command:
    """The output of a shell command, through the pipe of webdataset.

    The command has a session of its own, so that all its processes can be ended together.
    """

    def __init__(self, command: str) -> None:
        from webdataset.gopen import Pipe
        from webdataset.utils import enforce_security

        if enforce_security:
            raise PermissionError("WDS_SECURE is set, which forbids commands")
        # Without a buffer, what the command has written is there at once.
        self._pipe: Any = Pipe(
            command, mode="rb", shell=True, bufsize=0, ignore_errors=True, start_new_session=True
        )
        self._process: subprocess.Popen[bytes] = self._pipe.proc

    def read(self, size: int) -> bytes:
        """What the command has written.

        Raises:
            ChildProcessError: the shell finds no such command, or cannot run it.
            OSError: it has ended with another status than 0.
        """
        data: bytes = self._process.stdout.read(size)  # type: ignore[union-attr]
        if not data and (status := self._process.wait()):
            kind = ChildProcessError if status in _NO_COMMAND else OSError
            raise kind(f"the command ended with status {status}")
        return data

    def close(self) -> None:
        """Kill all processes of the command, unless it has ended and `read` has seen it."""
        # Until its status is taken, no other process can get its number.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
