"""Copies a finished corpus to an object store."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from data_prep.errors import PrepError
from data_prep.execution import Context, Executor
from data_prep.inputs.remote import file_system
from data_prep.manifest import MANIFEST_NAME, Manifest
from data_prep.pipeline.provenance import RECORD_NAME
from data_prep.progress import ByteProgress


class _Uploaded(BaseModel):
    """The files of a corpus that are already at a URL; stored next to the local corpus."""

    url: str
    fingerprint: str
    files: list[str] = []


def upload_corpus(folder: Path, url: str, executor: Executor, *, overwrite: bool = False) -> bool:
    """Copy the corpus `folder` to `url`, file by file, the manifest last.

    A corpus at a URL is complete once its manifest exists. An interrupted upload resumes where it
    stopped.

    Args:
        folder: a corpus on disk.
        url: the target, for any protocol that fsspec writes, such as s3://bucket/corpus.
        executor: runs the work, one file per task.
        overwrite: replace another corpus at `url`.

    Returns:
        Whether anything was copied; False if this corpus is already there.

    Raises:
        PrepError: another corpus is there, or the store reports an error.
    """
    manifest = Manifest.load(folder)
    url = url.rstrip("/")
    system = file_system(url)
    found = _fingerprint_at(system, url)
    if found == manifest.fingerprint:
        return False
    if found is not None:
        if not overwrite:
            raise PrepError(
                f"{url}: holds another corpus (fingerprint {found[:12]}…); choose another "
                "--output, or replace it with --overwrite"
            )
        _call(url, "be removed", system.rm, f"{url}/{MANIFEST_NAME}")
    listed = folder.with_name(f"{folder.name}.uploaded.json")
    done = _read_list(listed, url, manifest.fingerprint)
    _make_folder(system, url)
    names = sorted((manifest.files | {RECORD_NAME}) - {MANIFEST_NAME} - set(done.files))
    sizes = [(folder / name).stat().st_size for name in names]
    uploads = executor.map(_Uploader, (folder, url), names)
    with ByteProgress("upload", sum(sizes)) as progress, closing(uploads) as uploaded:
        for index, _ in uploaded:
            done.files.append(names[index])
            listed.write_bytes(done.model_dump_json().encode())
            progress.advance(sizes[index])
    _put(system, folder / MANIFEST_NAME, f"{url}/{MANIFEST_NAME}")
    listed.unlink(missing_ok=True)
    return True


class _Uploader:
    """Copies files of a folder to a URL."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def __call__(self, name: str, context: Context) -> None:
        _put(file_system(self.url), self.folder / name, f"{self.url}/{name}")


def _make_folder(system: Any, url: str) -> None:
    """Create the folder of a corpus, but never a bucket, whose name may be mistyped."""
    protocol, _, path = url.partition("://")
    top = f"{protocol}://{'/' * path.startswith('/')}{path.lstrip('/').partition('/')[0]}"
    if not _call(url, "be listed", system.exists, top):
        raise PrepError(f"{url}: {top} does not exist; create it first")
    _call(url, "be written", lambda: system.makedirs(url, exist_ok=True))


def _put(system: Any, path: Path, url: str) -> None:
    """Copy a file, and check that all bytes arrived."""
    _call(url, "be written", system.put_file, str(path), url)
    system.invalidate_cache()
    size = _call(url, "be read", system.info, url)["size"]
    if size != path.stat().st_size:
        raise PrepError(f"{url}: {size} of {path.stat().st_size} bytes arrived; upload it again")


def _call(url: str, what: str, call: Callable[..., Any], *arguments: str) -> Any:
    """Call the file system, and turn every failure into an error that names the URL.

    Every file system raises its own errors, and some of them name no file.
    """
    try:
        return call(*arguments)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise PrepError(f"{url}: cannot {what} ({reason})") from error


def _fingerprint_at(system: Any, url: str) -> str | None:
    """Return the fingerprint of the corpus at a URL, or None if there is no corpus."""
    path = f"{url}/{MANIFEST_NAME}"
    if not _call(url, "be listed", system.exists, path):
        return None
    try:
        fingerprint = json.loads(_call(path, "be read", system.cat_file, path))["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise PrepError(
            f"{path}: exists and is not the manifest of a corpus; choose another --output"
        ) from None
    return str(fingerprint)


def _read_list(path: Path, url: str, fingerprint: str) -> _Uploaded:
    """Return what an interrupted upload of this corpus to this URL has copied."""
    new = _Uploaded(url=url, fingerprint=fingerprint)
    try:
        found = _Uploaded.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return new
    return found if (found.url, found.fingerprint) == (url, fingerprint) else new
