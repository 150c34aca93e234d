"""Find the input files of a build in folders, by globs and at URLs."""

import glob
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data_prep.errors import PrepError
from data_prep.inputs.formats import KNOWN, check_libraries, kind_of
from data_prep.inputs.opening import BYTE_ORDER_MARK, open_file
from data_prep.inputs.places import SourceFile, local_stamp
from data_prep.inputs.records import DocumentError
from data_prep.inputs.remote import base_name, file_system, is_http, stamp_of, unreadable
from data_prep.inputs.settings import InputFormat, InputSettings


class _Found(NamedTuple):
    """A candidate for an input file: its path or URL, name, size and stamp."""

    path: str
    name: str
    bytes: int
    stamp: str


def find_files(corpora: Mapping[str, InputSettings]) -> list[SourceFile]:
    """Return the input files of a build, in the order in which their documents are numbered.

    Corpora and paths keep their order. A folder yields its files of known suffixes at any depth,
    sorted by name, as object stores do. A glob (`*`, `?`, `[...]`, and `**` for folders at any
    depth; in URLs `*` and `**`) yields the files that match. Hidden files and folders are
    skipped. A path that contains "://" is a URL, read through fsspec; the URL of a folder on a
    web server ends with "/".

    With a format other than "auto", folders and globs yield files of any suffix, except files
    whose name begins with "_", which Hadoop and Spark write next to the data.

    Raises:
        PrepError: a path is missing, has an unknown suffix, is given twice, holds no file, or
            needs a package that is not installed.
        OSError: a folder or file cannot be read.
    """
    files: list[SourceFile] = []
    for corpus, settings in enumerate(corpora.values()):
        for path in settings.paths:
            files += [_describe(item, settings, corpus) for item in _find(path, settings.format)]
    seen: set[str] = set()
    for file in files:
        real = file.path if file.is_remote else os.path.realpath(file.path)
        if real in seen:
            raise PrepError(f"{file.path}: given twice; its documents would be counted twice")
        seen.add(real)
    return files


def _describe(found: _Found, settings: InputSettings, corpus: int) -> SourceFile:
    kind = kind_of(base_name(found.path), settings.format)
    if kind is None:
        raise PrepError(f"{found.path}: input must be {KNOWN}; or set the format")
    check_libraries(kind, found.path)
    file = SourceFile(
        path=found.path,
        name=found.name,
        format=kind.format,
        compression=kind.compression,
        bytes=found.bytes,
        stamp=found.stamp,
        corpus=corpus,
        divisible=False,
    )
    if file.format == "json" and not _is_array(file):
        file = replace(file, format="jsonl")
    return replace(file, divisible=_is_divisible(file, settings))


def _is_divisible(file: SourceFile, settings: InputSettings) -> bool:
    if file.compression or is_http(file.path):
        return False
    if file.format == "text":
        return settings.split_text != "file"
    return file.format in ("jsonl", "parquet")


def _is_array(file: SourceFile) -> bool:
    """Return whether the first character of a .json file opens an array."""
    try:
        with open_file(file) as content:
            head = content.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
            while not head.strip() and (more := content.read(1)):
                head = more
    except DocumentError:  # reported when the file is read
        return False
    return head.lstrip().startswith(b"[")


def _find(path: str, wanted: InputFormat) -> list[_Found]:
    """Return the files of one path, sorted by name.

    Raises:
        PrepError: there is none.
    """
    path = path.removeprefix("file://")
    found = list(_find_remote(path, wanted) if "://" in path else _find_local(path, wanted))
    if not found:
        what = "this glob matches" if _is_glob(path) else "this folder holds"
        raise PrepError(f"{path}: {what} no file to read; input is {KNOWN}")
    return sorted(found, key=lambda file: file.name)


def _is_input(path: str, name: str, wanted: InputFormat) -> bool:
    """Return whether a file found in a folder or by a glob is an input file."""
    hidden = any(part.startswith(".") for part in name.split("/")[1:])
    metadata = wanted != "auto" and posixpath.basename(name).startswith("_")
    return not hidden and not metadata and kind_of(base_name(path), wanted) is not None


def _is_glob(path: str) -> bool:
    return "*" in path if "://" in path else glob.has_magic(path) and not os.path.lexists(path)


def _glob_root(path: str) -> str:
    """Return the folder in which a glob begins."""
    parts = path.split("/")
    magic = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:magic]) or ("/" if path.startswith("/") else ".")


def _find_local(path: str, wanted: InputFormat) -> Iterator[_Found]:
    inside: Iterator[str]
    if _is_glob(path):
        root, inside = _glob_root(path), glob.iglob(path, recursive=True)
    elif os.path.isdir(path):
        root, inside = path, _walk(path)
    elif os.path.isfile(path):
        yield _stat(path, os.path.basename(path))
        return
    elif os.path.exists(path):
        raise PrepError(f"{path}: neither a file nor a folder; pipes cannot be read twice")
    else:
        raise PrepError(f"{path}: no such file or folder")
    above = os.path.dirname(os.path.abspath(root))
    for file in inside:
        name = Path(os.path.relpath(file, above)).as_posix()
        if _is_input(file, name, wanted) and not os.path.isdir(file):
            yield _stat(file, name)


def _stat(path: str, name: str) -> _Found:
    status = os.stat(path)
    return _Found(path, name, status.st_size, local_stamp(status))


def _walk(folder: str) -> Iterator[str]:
    """Yield all files in a folder; follow links to folders, but visit each folder once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in names)


def _find_remote(url: str, wanted: InputFormat) -> Iterator[_Found]:
    system = file_system(url)
    try:
        if _is_glob(url):
            root, inside = _glob_root(url), system.glob(url, detail=True)
        elif not url.endswith("/") and (info := system.info(url))["type"] != "directory":
            yield _Found(url, base_name(url), int(info.get("size") or 0), stamp_of(info))
            return
        else:
            root, inside = url, system.find(url, detail=True)
    except FileNotFoundError:
        raise PrepError(f"{url}: no such file or folder") from None
    except Exception as error:
        raise unreadable(url, error) from error
    root = root.rstrip("/")
    top = system._strip_protocol(root)
    for path, info in inside.items():
        below = path.removeprefix(top)
        child, name = (
            root + below,
            base_name(root) + below,
        )  # keeps the beginning as the user wrote it
        if info["type"] == "file" and _is_input(child, name, wanted):
            yield _Found(child, name, int(info.get("size") or 0), stamp_of(info))
