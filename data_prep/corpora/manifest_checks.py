"""Checks the files other than shards: manifest, tokenizer, indexes, lengths, build record."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from data_prep.corpora.faults import Verdict
from data_prep.errors import PrepError
from data_prep.files import sha256_of
from data_prep.manifest import FORMAT, MANIFEST_NAME, FileInfo, Manifest, SplitInfo
from data_prep.pipeline.provenance import RECORD_NAME, BuildRecord
from data_prep.shards import read_index, read_lengths
from data_prep.tokenizers import load_tokenizer


def read_manifest(folder: Path, verdict: Verdict) -> Manifest | None:
    """Read the manifest, even if it was edited, as long as it has the right fields.

    Returns:
        The manifest; None if it cannot be used for further checks.

    Raises:
        PrepError: the file is missing.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise PrepError(
            f"{path}: no such file; a corpus folder is what `megapt-prep build` writes"
        ) from None
    try:
        manifest = Manifest.load(folder)
    except PrepError as error:
        verdict.add(MANIFEST_NAME, str(error).removeprefix(f"{path}: "))
        try:
            edited = Manifest.model_validate_json(data)
        except ValidationError:
            return None
        vocabulary = edited.vocabulary
        known = max([vocabulary.unk, *vocabulary.reserved]) < vocabulary.size
        return edited if edited.format == FORMAT and known else None
    # The fingerprint does not cover white space and the order of fields.
    if manifest.to_bytes() != data:
        verdict.add(
            MANIFEST_NAME, "the content is right, but not byte for byte: the file was edited"
        )
    return manifest


def check_counts(manifest: Manifest, verdict: Verdict) -> None:
    """Check the manifest's counts against each other."""
    for name, split in manifest.splits.items():
        for counted, what, total in (
            (sum(info.documents for info in split.shards), "documents", split.documents),
            (sum(info.tokens for info in split.shards), "tokens", split.tokens),
            (sum(split.label_counts), "labelled", split.labelled),
            (sum(split.corpus_counts), "corpus_counts", split.documents),
            (len(split.label_counts), "label_counts", len(manifest.labels)),
            (len(split.corpus_counts), "corpus_counts", max(1, len(manifest.corpora))),
        ):
            if counted != total:
                verdict.add(MANIFEST_NAME, f"{name}: {what} add up to {counted}, not {total}")
    rejected = sum(manifest.rejected.values())
    if verdict.documents + rejected != manifest.source_documents:
        verdict.add(
            MANIFEST_NAME,
            f"{verdict.documents} documents and {rejected} rejected "
            f"are not the {manifest.source_documents} of the input",
        )


def _check_file(folder: Path, info: FileInfo, verdict: Verdict) -> bool:
    """Return whether a file has the size and the checksum that the manifest says."""
    path = folder / info.file
    try:
        size, found = path.stat().st_size, sha256_of(path)
    except FileNotFoundError:
        verdict.add(info.file, "no such file, but the manifest names it")
        return False
    except OSError as error:
        verdict.add(info.file, f"cannot be read: {error.strerror}")
        return False
    if size != info.bytes:
        verdict.add(info.file, f"{size} bytes long, the manifest says {info.bytes}")
    if found != info.sha256:
        verdict.add(info.file, f"sha256 is {found}, the manifest says {info.sha256}")
    return size == info.bytes and found == info.sha256


def check_tokenizer(folder: Path, manifest: Manifest, verdict: Verdict, text: bool) -> bool:
    """Check the tokenizer; return whether texts are to be checked and it decodes them exactly."""
    file = manifest.tokenizer.file
    if not _check_file(folder, manifest.tokenizer, verdict):
        return False
    try:
        tokenizer = load_tokenizer(folder / file)
    except PrepError as error:
        verdict.add(file, str(error).removeprefix(f"{folder / file}: "))
        return False
    if tokenizer.vocabulary != manifest.vocabulary:
        verdict.add(file, "its vocabulary is not the one in the manifest")
    if text and not tokenizer.lossless:
        lost = ", ".join(tokenizer.lost)
        verdict.notes.append(f"{file}: changes texts ({lost}), so their lengths were not checked")
    return text and tokenizer.lossless


def check_index(folder: Path, split: SplitInfo, verdict: Verdict) -> NDArray[np.int64] | None:
    """Check and return the block tables of a split; None if they cannot be used."""
    file = split.index.file
    if not _check_file(folder, split.index, verdict):
        return None
    try:
        table = read_index(folder, split)
    except PrepError as error:
        verdict.add(file, str(error).removeprefix(f"{folder / file}: "))
        return None
    end = 0
    for info in split.shards:
        rows = table[end : end + info.blocks]
        end += info.blocks
        if (rows[:, 1:] <= 0).any() or rows[:, 1:].sum(axis=0).tolist() != [
            info.documents,
            info.tokens,
        ]:
            verdict.add(file, f"its counts of {info.file} are not those of the manifest")
            return None
    return table


def check_lengths(folder: Path, split: SplitInfo, verdict: Verdict) -> bool:
    """Check the lengths of a split; return whether shards can be compared with them."""
    file = split.lengths.file
    if not _check_file(folder, split.lengths, verdict):
        return False
    try:
        read_lengths(folder, split)
    except PrepError as error:
        verdict.add(file, str(error).removeprefix(f"{folder / file}: "))
        return False
    return True


def check_record(folder: Path, manifest: Manifest, verdict: Verdict) -> None:
    """Check that the record of the build, if there is one, belongs to this corpus."""
    try:
        record = BuildRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
    except FileNotFoundError:
        verdict.notes.append(f"{RECORD_NAME}: missing, so the origin of the corpus is unknown")
    except (OSError, ValidationError):
        verdict.add(RECORD_NAME, "cannot be read as the record of a build")
    else:
        if record.fingerprint != manifest.fingerprint:
            verdict.add(RECORD_NAME, "is the record of another corpus")
