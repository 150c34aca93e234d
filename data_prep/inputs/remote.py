"""Files at URLs, through fsspec."""

import io
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from data_prep.errors import MissingPackageError, PrepError
from data_prep.inputs.optional import load_optional

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_EXTRA = "remote"
# Properties that change when a file changes; the most reliable ones first.
_STAMPS = ("ETag", "etag", "md5Hash", "md5", "generation", "LastModified", "mtime", "created")
_REFUSAL_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_TEMPORARY_STATUSES = (408, 425, 429)
"""HTTP 4xx statuses after which a retry may succeed."""


def is_http(url: str) -> bool:
    """Return whether a URL is on a web server, which reliably serves only whole files."""
    return url.startswith(("http://", "https://"))


def base_name(url: str) -> str:
    """Return the name of the file, without the query of an HTTP address."""
    path = urlsplit(url).path if is_http(url) else url
    return path.rstrip("/").rpartition("/")[2]


def file_system(url: str) -> Any:
    """Return the fsspec file system of a URL, with the credentials that fsspec finds by itself.

    Raises:
        MissingPackageError: fsspec, or the package for the URL's protocol, is not installed.
        PrepError: the protocol is unknown.
    """
    fsspec = load_optional("fsspec", _EXTRA, url)
    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        raise MissingPackageError(
            f"{url}: {error}; for s3:// and https:// also: pip install 'megapt[{_EXTRA}]'"
        ) from None
    except ValueError as error:
        raise PrepError(f"{url}: {error}") from None


def stamp_of(info: dict[str, Any]) -> str:
    """Return the part of a file's metadata that changes when the file changes, or ""."""
    return next((str(info[name]) for name in _STAMPS if info.get(name)), "")


def unreadable(url: str, error: Exception) -> PrepError:
    """Return the error for a URL that cannot be read or listed."""
    message = str(error).strip().partition("\n")[0]
    reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return PrepError(f"{url}: cannot be read ({reason})")


def refuses(error: Exception) -> bool:
    """Return whether an error is a final answer: the file does not exist, or access is denied.

    Any other error may come from the store or the network and may be temporary.
    """
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _TEMPORARY_STATUSES
    return refused or isinstance(error, _REFUSAL_ERRORS)


class RemoteFile(io.RawIOBase):
    """A file at a URL; every failure is a `PrepError` that names the URL.

    Each file system raises its own errors. None of them may be mistaken for damage of the file's
    content, which a build may be configured to skip.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        system = file_system(url)
        # Many web servers do not support ranges; a stream needs a single request.
        options = {"block_size": 0} if is_http(url) else {}
        try:
            self._file: Any = system.open(url, "rb", **options)
        except Exception as error:
            raise unreadable(url, error) from error

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether random access is possible."""
        return not is_http(self.url)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; see `io.RawIOBase.seek`."""
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        """Return the position."""
        position: int = self._file.tell()
        return position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read bytes into `buffer`; see `io.RawIOBase.readinto`.

        Raises:
            PrepError: the file cannot be read.
        """
        view = memoryview(buffer)
        try:
            data = self._file.read(len(view))
        except Exception as error:
            raise unreadable(self.url, error) from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
