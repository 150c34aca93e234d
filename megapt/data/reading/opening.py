"""Opens the location that a user names."""

from __future__ import annotations

from pathlib import Path

from megapt.config import ReadingConfig
from megapt.data.reading.location import LocalFolder, Location
from megapt.data.reading.remote import Remote
from megapt.data.reading.transport import PIPE

_LOCAL = ("file", "local")


def open_location(where: str, reading: ReadingConfig) -> Location:
    """Return the location that `where` names, without reading anything.

    Args:
        where: a folder; a URL that fsspec knows (https, s3, gs, …); or `pipe:` and a shell
            command with {} where the name of a file goes.
        reading: how files are fetched and checked.

    Raises:
        ConfigError: if a package for the protocol is not installed, or a command has no {}.
    """
    if where.startswith(PIPE):
        return Remote(where, reading)
    scheme, mark, path = where.partition("://")
    if not mark:
        return LocalFolder(where, Path(where), reading)
    scheme = scheme.lower()  # fsspec knows protocols in lower case only
    if scheme in _LOCAL:
        return LocalFolder(where, Path(path), reading)
    return Remote(f"{scheme}://{path}", reading)
