"""Keys of documents, and tables of keys that tasks can read a part of.

A unit of the corpus has one table of a kind, a structured array sorted by the high bits of the
keys, to be saved as .npy. Its documents are numbered from 0; a task adds the unit's first number.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.minhash import NO_SIGNATURE
from data_prep.dedup.settings import NearSettings
from data_prep.dedup.shingles import UNICODE_VERSION, mixed

KEY_VERSION = f"1, Unicode {UNICODE_VERSION}"
"""Keys of two versions do not compare. Belongs to whatever names stored keys."""

TEXT_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4")])
"""20 bytes: a 128-bit key and the number of its document in the unit."""

BAND_KEY = np.dtype([("high", "<u8"), ("document", "<u4")])
"""12 bytes: the hash of a band's slots and the number of its document in the unit."""

_SLOT = np.uint64(0xD1342543DE82EF95)  # odd


def text_keys(strings: Iterable[str]) -> NDArray[np.uint64]:
    """128-bit keys of D strings: texts, or ids.

    BLAKE2b of the UTF-8 bytes, with no normalization beyond what cleaning did. Among 10^10
    different strings two share a key with a probability of 1.5e-19.

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
        documents: their rising numbers in the unit, uint32 [D]; None counts from 0.

    Returns:
        `TEXT_KEY` [D], sorted by key and document.
    """
    table = np.empty(len(keys), dtype=TEXT_KEY)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    table["high"], table["low"] = keys[order, 0], keys[order, 1]
    table["document"] = order if documents is None else documents[order]
    return table


def band_key_table(signatures: NDArray[np.uint16], settings: NearSettings) -> NDArray[np.void]:
    """The sorted band keys of a unit; documents without a signature have none.

    Args:
        signatures: of the D documents of the unit, uint16 [D, permutations].
        settings: those the signatures were made with.

    Returns:
        `BAND_KEY` [at most D * bands], sorted by key and document.
    """
    documents = np.flatnonzero((signatures != NO_SIGNATURE).any(axis=1))
    used = signatures[documents, : settings.bands * settings.rows]
    slots = used.reshape(-1, settings.bands, settings.rows)
    # A band's number begins its hash, so that only the same band of others is equal.
    hashes = np.tile(np.arange(1, settings.bands + 1, dtype=np.uint64), (len(documents), 1))
    for row in range(settings.rows):
        hashes = hashes * _SLOT + slots[:, :, row]
    flat = mixed(hashes).reshape(-1)
    order = np.argsort(flat, kind="stable")
    table = np.empty(len(flat), dtype=BAND_KEY)
    table["high"] = flat[order]
    table["document"] = documents[order // settings.bands]
    return table
