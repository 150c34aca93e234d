"""Keys of documents, and sorted tables of keys, of which a task reads only a part.

A unit of the corpus has one table of each kind: a structured array, sorted by the high bits of
the keys and stored as .npy. Its documents are numbered from 0; a task adds the number of the
unit's first document.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.minhash import NO_SIGNATURE
from data_prep.dedup.settings import NearSettings
from data_prep.dedup.shingles import UNICODE_VERSION, mixed

KEY_VERSION = f"1, Unicode {UNICODE_VERSION}"
"""Keys of different versions cannot be compared. Any name of stored keys must include it."""

TEXT_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4")])
"""A 128-bit key and the number of its document in the unit; 20 bytes."""

BAND_KEY = np.dtype([("high", "<u8"), ("document", "<u4")])
"""The hash of a band's slots and the number of its document in the unit; 12 bytes."""

_SLOT = np.uint64(0xD1342543DE82EF95)  # odd


def text_keys(strings: Iterable[str]) -> NDArray[np.uint64]:
    """Return the 128-bit keys of D strings (texts or ids).

    A key is the BLAKE2b hash of the UTF-8 bytes, without normalization beyond that of the
    cleaning. Among 10^10 different strings, the probability that two share a key is 1.5e-19.

    Returns:
        uint64 [D, 2].
    """
    digests = (hashlib.blake2b(string.encode(), digest_size=16).digest() for string in strings)
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def text_key_table(
    keys: NDArray[np.uint64], documents: NDArray[np.uint32] | None = None
) -> NDArray[np.void]:
    """Sort the keys of a unit.

    Args:
        keys: keys of D documents, uint64 [D, 2].
        documents: their ascending numbers in the unit, uint32 [D]; None counts from 0.

    Returns:
        `TEXT_KEY` [D], sorted by key and document.
    """
    table = np.empty(len(keys), dtype=TEXT_KEY)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    table["high"], table["low"] = keys[order, 0], keys[order, 1]
    table["document"] = order if documents is None else documents[order]
    return table


def band_key_table(signatures: NDArray[np.uint16], settings: NearSettings) -> NDArray[np.void]:
    """Return the sorted band keys of a unit; documents without a signature have none.

    Args:
        signatures: signatures of the D documents of the unit, uint16 [D, permutations].
        settings: the settings of the signatures.

    Returns:
        `BAND_KEY` [at most D * bands], sorted by key and document.
    """
    documents = np.flatnonzero((signatures != NO_SIGNATURE).any(axis=1))
    used = signatures[documents, : settings.bands * settings.rows]
    slots = used.reshape(-1, settings.bands, settings.rows)
    # The hash begins with the number of the band, so only equal bands of two documents match.
    hashes = np.tile(np.arange(1, settings.bands + 1, dtype=np.uint64), (len(documents), 1))
    for row in range(settings.rows):
        hashes = hashes * _SLOT + slots[:, :, row]
    flat = mixed(hashes).reshape(-1)
    order = np.argsort(flat, kind="stable")
    table = np.empty(len(flat), dtype=BAND_KEY)
    table["high"] = flat[order]
    table["document"] = documents[order // settings.bands]
    return table
