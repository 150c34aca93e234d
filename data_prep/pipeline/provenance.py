"""Records what a corpus was built from, in a file next to its manifest.

The manifest describes only the content and names no input. With this record a repeated build sees
that there is nothing to do, and a person sees where a corpus came from.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from data_prep.errors import PrepError
from data_prep.files import write_atomically
from data_prep.inputs import InputSettings
from data_prep.manifest import Manifest
from data_prep.pipeline.identity import InputFile
from data_prep.shards import open_shards, read_lengths

RECORD_NAME = "build.json"


_LIBRARIES = ("megapt", "sentencepiece", "tokenizers", "ftfy", "rjieba")


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that shape the content of a corpus."""
    installed = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


class BuildRecord(BaseModel):
    """Inputs, tokenizer and settings of a build, and its result."""

    model_config = ConfigDict(frozen=True)

    inputs: list[InputFile]
    """The files that were read."""
    tokenizer_sha256: str
    """Checksum of the tokenizer."""
    settings: dict[str, JsonValue]
    """The settings that shaped the content."""
    versions: dict[str, str]
    """Versions of the libraries that shaped the content."""
    fingerprint: str = ""
    """Fingerprint of the corpus."""
    examples: dict[str, list[str]] = {}
    """Places of the first documents that were rejected as faulty, poisonous or unreadable, by
    reason."""

    def save(self, folder: Path, fingerprint: str, examples: dict[str, list[str]]) -> None:
        """Write `folder`/build.json for a corpus with this fingerprint."""
        complete = self.model_copy(update={"fingerprint": fingerprint, "examples": examples})
        write_atomically(folder / RECORD_NAME, complete.model_dump_json(indent=1).encode())

    def difference(self, other: "BuildRecord") -> str | None:
        """Return how the build `other` differs from this one, or None."""
        if self.inputs != other.inputs:
            return "other input files"
        if self.tokenizer_sha256 != other.tokenizer_sha256:
            return "another tokenizer"
        for name, value in self.settings.items():
            if other.settings.get(name) != value:
                return f"{name} = {value!r}, not {other.settings.get(name)!r}"
        return None


def check_apart(output: Path, corpora: Iterable[InputSettings]) -> None:
    """Check that the output is in no input folder, where the next build would read it as input.

    Raises:
        PrepError: an input folder contains it.
    """
    real = Path(os.path.realpath(output))
    for path in (path for corpus in corpora for path in corpus.paths):
        if os.path.isdir(path) and real.is_relative_to(os.path.realpath(path)):
            raise PrepError(f"{output}: lies in the input folder {path}; choose another --output")


def read_record(folder: Path) -> BuildRecord:
    """Read the build record of a corpus folder.

    Raises:
        PrepError: the folder is not a corpus.
    """
    try:
        return BuildRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        raise PrepError(f"{folder}: exists and is not a corpus; choose another --output") from None


def find_corpus(output: Path, record: BuildRecord, *, overwrite: bool) -> Manifest | None:
    """Look for the corpus of `record` in `output`.

    Returns:
        Its manifest; None if `output` is absent or empty, or is a corpus and may be overwritten.

    Raises:
        PrepError: `output` holds another corpus, or something that is not a corpus.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    found = read_record(output)
    if overwrite:
        return None
    if difference := found.difference(record):
        raise PrepError(
            f"{output}: holds a corpus of another build ({difference}); "
            "choose another --output, or replace it with --overwrite"
        )
    manifest = Manifest.load(output)
    if manifest.fingerprint != found.fingerprint:
        raise PrepError(
            f"{output}: {RECORD_NAME} belongs to another manifest; replace it with --overwrite"
        )
    for split in manifest.splits.values():
        open_shards(output, split)
        read_lengths(output, split)
    return manifest
