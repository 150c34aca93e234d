"""Open local or remote, plain or compressed input files as streams of bytes."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import tempfile
import zlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from data_prep.errors import PrepError
from data_prep.inputs.optional import load_zstd
from data_prep.inputs.places import SourceFile, local_stamp
from data_prep.inputs.records import DocumentError
from data_prep.inputs.remote import RemoteFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # the mark of UTF-32-LE begins with the first
_UTF32_MARK = b"\x00\x00\xfe\xff"
_ZSTD_WINDOW_LOG = 31  # `zstd --ultra --long=31` may need it


def open_file(file: SourceFile, start: int = 0) -> BinaryIO:
    """Open a file as a stream of its decompressed content.

    Args:
        file: what to open.
        start: byte at which the stream begins; must be 0 if the file is not divisible.

    Raises:
        DocumentError: here or on reading: the file is UTF-16, or its compressed data are
            "truncated" or "corrupt". The stream first returns all data before the fault.
        PrepError: here or on reading: a URL cannot be read, or a local file changed after it
            was found.
        OSError: a local file cannot be read.
    """
    stored = _open_stored(file)
    try:
        if file.compression is None:
            _refuse_utf16(file, stored, start)
            if start:
                stored.seek(start)
            return cast(BinaryIO, stored)
        if not stored.peek(1):
            raise DocumentError("truncated", f"the {file.compression} data are empty")
        plain = _Decompressed(stored, file.compression)
        content = io.BufferedReader(plain, BUFFER_BYTES)
        _refuse_utf16(file, content, start)
        return cast(BinaryIO, content)
    except BaseException:
        stored.close()
        raise


def open_seekable(file: SourceFile) -> BinaryIO:
    """Open a file for random access.

    A compressed file, or a file on a web server, is copied to an unnamed temporary file.

    Raises:
        DocumentError: see `open_file`.
        PrepError: see `open_file`.
        OSError: see `open_file`.
    """
    content = open_file(file)
    if content.seekable() and file.compression is None:
        return content
    with content, ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(content, copy, BUFFER_BYTES)
        copy.seek(0)
        stack.pop_all()  # the caller closes it
    return cast(BinaryIO, copy)


def _open_stored(file: SourceFile) -> "io.BufferedReader[Any]":
    if file.is_remote:
        return io.BufferedReader(RemoteFile(file.path), BUFFER_BYTES)
    stored = io.BufferedReader(io.FileIO(file.path), BUFFER_BYTES)
    status = os.fstat(stored.fileno())
    if (status.st_size, local_stamp(status)) != (file.bytes, file.stamp):
        stored.close()
        raise PrepError(
            f"{file.path}: was changed while the corpus was built; start again once it is complete"
        )
    return stored


def _refuse_utf16(file: SourceFile, content: "io.BufferedReader[Any]", start: int) -> None:
    """Raise a fault for UTF-16 and UTF-32, by the mark at the start of the file.

    Raises:
        DocumentError: the file has the byte order mark of UTF-16 or UTF-32.
    """
    if file.format == "parquet" or (start and file.is_remote):
        return
    head = os.pread(content.fileno(), 4, 0) if start else content.peek(4)[:4]
    if head.startswith(_UTF16_MARKS) or head == _UTF32_MARK:
        raise DocumentError(
            "utf16", "text in UTF-16 or UTF-32, not UTF-8; convert it, for example with iconv"
        )


class _Decompressed(io.RawIOBase):
    """A stream of decompressed data, which reports damaged data as a `DocumentError`.

    The readers of the standard library continue from one gzip member, bz2 or xz stream, or zstd
    frame to the next. Files of parallel compressors need that.
    """

    def __init__(self, stored: "io.BufferedReader[Any]", compression: str) -> None:
        self._stored = stored
        self._compression = compression
        self._plain: Any
        self._faults: tuple[type[Exception], ...] = (OSError, zlib.error, lzma.LZMAError)
        if compression == "gzip":
            self._plain = gzip.GzipFile(fileobj=stored)
        elif compression == "bz2":
            self._plain = bz2.BZ2File(stored)
        elif compression == "xz":
            self._plain = lzma.LZMAFile(stored)  # noqa: SIM115 - closed in close
        else:
            zstd = load_zstd("a .zst file")
            options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
            self._plain = zstd.ZstdFile(stored, options=options)
            self._faults += (zstd.ZstdError,)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read bytes into `buffer`; see `io.RawIOBase.readinto`.

        Raises:
            DocumentError: the data end too early, or are not valid for this compression.
        """
        view = memoryview(buffer)
        try:
            # Not read, which loses the valid data before a fault.
            data = self._plain.read1(len(view))
        except EOFError:
            raise DocumentError(
                "truncated", f"the {self._compression} data are cut short"
            ) from None
        except self._faults as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the data
            raise DocumentError(
                "corrupt", f"the {self._compression} data are damaged ({error})"
            ) from None
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close this stream and the stored file."""
        if not self.closed:
            self._plain.close()
            self._stored.close()
        super().close()
