"""What a corpus was built from, kept beside its manifest.

The manifest describes the content, so it names no input; this record lets a repeated build
see that there is nothing to do, and a person see where a corpus came from.
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
    """Inputs, tokenizer and settings of a build, and what came out.

    Attributes:
        inputs: the files that were read.
        tokenizer_sha256: checksum of the tokenizer.
        settings: what shaped the content.
        versions: of the libraries that shaped it.
        fingerprint: of the corpus.
        examples: by reason, the places of the first documents that were left out as faulty,
            poisonous or unreadable.
    """

    model_config = ConfigDict(frozen=True)

    inputs: list[InputFile]
    tokenizer_sha256: str
    settings: dict[str, JsonValue]
    versions: dict[str, str]
    fingerprint: str = ""
    examples: dict[str, list[str]] = {}

    def save(self, folder: Path, fingerprint: str, examples: dict[str, list[str]]) -> None:
        """Write `folder`/build.json for a corpus with this fingerprint."""
        complete = self.model_copy(update={"fingerprint": fingerprint, "examples": examples})
        write_atomically(folder / RECORD_NAME, complete.model_dump_json(indent=1).encode())

    def difference(self, other: "BuildRecord") -> str | None:
        """What makes `other` another build than this one, or None."""
        if self.inputs != other.inputs:
            return "other input files"
        if self.tokenizer_sha256 != other.tokenizer_sha256:
            return "another tokenizer"
        for name, value in self.settings.items():
            if other.settings.get(name) != value:
                return f"{name} = {value!r}, not {other.settings.get(name)!r}"
        return None


def check_apart(output: Path, corpora: Iterable[InputSettings]) -> None:
    """See that no input folder holds the output, which the next build would take for input.

    Raises:
        PrepError: one does.
    """
    real = Path(os.path.realpath(output))
    for path in (path for corpus in corpora for path in corpus.paths):
        if os.path.isdir(path) and real.is_relative_to(os.path.realpath(path)):
            raise PrepError(f"{output}: lies in the input folder {path}; choose another --output")


def read_record(folder: Path) -> BuildRecord:
    """What a corpus folder says that it was built from.

    Raises:
        PrepError: the folder is no corpus.
    """
    try:
        return BuildRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        raise PrepError(f"{folder}: exists and is not a corpus; choose another --output") from None


def find_corpus(output: Path, record: BuildRecord, *, overwrite: bool) -> Manifest | None:
    """The corpus in `output` if it is the one that `record` would build.

    Returns:
        None if `output` is absent or empty, or is a corpus and may be overwritten.

    Raises:
        PrepError: `output` holds another corpus, or something that is none.
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
