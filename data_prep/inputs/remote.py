"""Files at URLs, through fsspec."""

import io
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from data_prep.errors import MissingPackageError, PrepError
from data_prep.inputs.optional import load_optional

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_EXTRA = "remote"
# What a file system tells about a file, the surest sign of a change first.
_STAMPS = ("ETag", "etag", "md5Hash", "md5", "generation", "LastModified", "mtime", "created")


_REFUSALS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_MAY_PASS = (408, 425, 429)
"""Answers of a web server that begin with 4 and ask for patience."""


def is_http(url: str) -> bool:
    """Whether a web server is asked, of which nothing can be relied on but whole files."""
    return url.startswith(("http://", "https://"))


def base_name(url: str) -> str:
    """The file's own name; what a web address asks with it is left out."""
    path = urlsplit(url).path if is_http(url) else url
    return path.rstrip("/").rpartition("/")[2]


def file_system(url: str) -> Any:
    """The fsspec file system of a URL. Credentials are those that it finds by itself.

    Raises:
        MissingPackageError: fsspec, or the package for the URL's protocol, is not installed.
        PrepError: nobody knows the protocol.
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
    """What of a file's description changes when the file does, or ""."""
    return next((str(info[name]) for name in _STAMPS if info.get(name)), "")


def unreadable(url: str, error: Exception) -> PrepError:
    """The error of a URL that cannot be read or listed."""
    told = str(error).strip().partition("\n")[0]
    why = f"{type(error).__name__}: {told}" if told else type(error).__name__
    return PrepError(f"{url}: cannot be read ({why})")


def refuses(error: Exception) -> bool:
    """Whether a store has answered that it has no such file, or does not give it away.

    Any other error may be one of the store or of the way to it, and may pass.
    """
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _MAY_PASS
    return refused or isinstance(error, _REFUSALS)


class RemoteFile(io.RawIOBase):
    """A file at a URL, whose every failure is a `PrepError` that names it.

    Each file system raises errors of its own. None may pass for damage of the file's content,
    which a build can be told to skip.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        system = file_system(url)
        # A stream asks a web server once; ranges are beyond many of them.
        options = {"block_size": 0} if is_http(url) else {}
        try:
            self._file: Any = system.open(url, "rb", **options)
        except Exception as error:
            raise unreadable(url, error) from error

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """Whether any byte can be read next."""
        return not is_http(self.url)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        """As of any file."""
        position: int = self._file.tell()
        return position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """As of any file.

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
        """As of any file."""
        if not self.closed:
            self._file.close()
        super().close()
