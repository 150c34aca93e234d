"""Writes the keys of a unit's documents while the unit is processed."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from data_prep.dedup.keys import band_key_table, text_key_table, text_keys
from data_prep.dedup.minhash import NO_SIGNATURE, signatures
from data_prep.manifest import FileInfo, describe_file
from data_prep.settings import BuildSettings
from data_prep.shard_writer import npy

SEGMENT_DOCUMENTS = 1 << 17

_Keyed: TypeAlias = tuple[NDArray[np.int64], NDArray[Any]]  # sorted numbers, and the key of each


def write_array(path: Path, array: NDArray[Any]) -> FileInfo:
    """Write an array as a .npy file, and return the file's entry."""
    data = npy(array)
    path.write_bytes(data)
    return describe_file(path.name, data)


class KeySegment(BaseModel):
    """Tables of the keys of consecutive documents, as files in the unit's folder."""

    first: int
    """Number in the unit of the document that is number 0 in the tables."""
    tables: dict[str, FileInfo]
    """The files, by kind: "ids" and "texts" (`TEXT_KEY`), "bands" (`BAND_KEY`) and "signatures"
    (uint16 [documents, permutations])."""


class KeyWriter:
    """Computes the keys that the settings need, and writes them in segments.

    Segments bound the memory, because a single compressed file can hold any number of documents. A
    segment spans at most `SEGMENT_DOCUMENTS` records, even if few of them stay.

    Args:
        folder: folder for the tables.
        settings: the build's settings.
    """

    def __init__(self, folder: Path, settings: BuildSettings) -> None:
        self.folder = folder
        self.near = settings.deduplicate.near
        self.texts = settings.deduplicate.exact or self.near is not None
        self.ids = settings.keeps_ids
        self.segments: list[KeySegment] = []
        self._first = self._stop = 0
        self._keys: dict[str, list[_Keyed]] = defaultdict(list)

    def add(
        self, numbers: NDArray[np.int64], texts: Sequence[str], ids: Sequence[str | None]
    ) -> None:
        """Add the next D documents.

        Args:
            numbers: their numbers in the unit, int64 [D], increasing over all calls.
            texts: their cleaned texts.
            ids: their ids; None where the corpus has none.
        """
        found: dict[str, _Keyed] = {}
        if self.ids:
            named = numbers[[id_ is not None for id_ in ids]]
            found["ids"] = named, text_keys([id_ for id_ in ids if id_ is not None])
        if self.texts:
            found["texts"] = numbers, text_keys(texts)
        if self.near:
            found["signatures"] = numbers, signatures(texts, self.near)
        # Stored only after all computations: a failed batch is tried again document by document.
        place = 0
        while place < len(numbers):
            if not self._keys:
                self._first = int(numbers[place])
            end = int(np.searchsorted(numbers, self._first + SEGMENT_DOCUMENTS))
            if end == place:
                self._close_segment()
                continue
            low, self._stop = int(numbers[place]), int(numbers[end - 1]) + 1
            for kind, (keyed, keys) in found.items():
                part = slice(*np.searchsorted(keyed, [low, self._stop]).tolist())
                self._keys[kind].append((keyed[part], keys[part]))
            place = end

    def close(self) -> list[KeySegment]:
        """Write the last segment; return all segments."""
        if self._keys:
            self._close_segment()
        return self.segments

    def _close_segment(self) -> None:
        tables: dict[str, NDArray[Any]] = {}
        for kind, parts in self._keys.items():
            numbers = np.concatenate([keyed for keyed, _ in parts]) - self._first
            keys = np.concatenate([keys for _, keys in parts])
            if kind == "signatures":
                assert self.near
                # A row for every record, so that a record's number finds its row.
                rows = np.full((self._stop - self._first, keys.shape[1]), NO_SIGNATURE, keys.dtype)
                rows[numbers] = keys
                tables["signatures"], tables["bands"] = rows, band_key_table(rows, self.near)
            else:
                tables[kind] = text_key_table(keys, numbers.astype(np.uint32))
        files: dict[str, FileInfo] = {}
        for kind, table in tables.items():
            name = f"{kind}-{len(self.segments):06d}.npy"
            files[kind] = write_array(self.folder / name, table)
        self.segments.append(KeySegment(first=self._first, tables=files))
        self._keys.clear()
