"""Encoding a text in small parts, each of which is encoded once and then looked up.

A merge of BPE makes a piece of the vocabulary out of two that touch. So where two characters
are neighbors in no piece, no merge ever crosses the place between them: the ids of a text
are those of its parts, one after another, exactly. In English these parts are words, and most
words of a text have been seen before.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[Sequence[str]], Sequence[NDArray[np.int32]]]

# With these limits a full cache of English words takes some 40 MB.
CACHED_PARTS = 1 << 18
CACHED_CHARACTERS = 32
_BITS = 22  # of the table of neighbors: 4 MiB


class WordCache:
    """The ids of parts of texts. It is emptied when it is full, which no result depends on.

    Args:
        encode: gives the ids of each of some parts as they are inside a text, int32.
        parts: number of parts that are kept at most.
    """

    def __init__(self, encode: Encode, parts: int = CACHED_PARTS) -> None:
        self._encode = encode
        self._limit = parts
        self._known: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._known)

    def encode(self, parts: Sequence[str]) -> NDArray[np.int32]:
        """The ids of parts, one after another, int32 [T]."""
        known = self._known
        found = [known.get(part) for part in parts]
        if None in found:
            fresh = self._learn({part for part, ids in zip(parts, found, strict=True) if not ids})
            found = [ids or fresh[part] for part, ids in zip(parts, found, strict=True)]
        return np.frombuffer(b"".join(found), dtype=np.int32)  # type: ignore[arg-type]

    def _learn(self, missing: Iterable[str]) -> dict[str, bytes]:
        ordered = sorted(missing)
        encoded = self._encode(ordered)
        fresh = {part: ids.tobytes() for part, ids in zip(ordered, encoded, strict=True)}
        if len(self._known) + len(fresh) > self._limit:
            self._known.clear()
        if len(fresh) <= self._limit:
            short = {part: ids for part, ids in fresh.items() if len(part) <= CACHED_CHARACTERS}
            self._known.update(short)
        return fresh


class Neighbors:
    """Which characters are neighbors in a piece of a vocabulary.

    The pairs are kept as bits of a hash table. Two pairs may share a bit, and a place is then
    taken for one that must not be cut: parts become longer, never wrong.

    Args:
        pieces: the pieces of ordinary text, with spaces as spaces.
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self._joined = np.zeros(1 << _BITS, dtype=np.bool_)
        for piece in pieces:
            self._joined[_hash_pairs(code_points(piece))] = True

    def cut(self, text: str, codes: NDArray[np.uint32]) -> list[str]:
        """Cut a text, given also as code points [T], wherever no piece joins two characters."""
        cuts = np.flatnonzero(~self._joined[_hash_pairs(codes)]) + 1
        places = [0, *cuts.tolist(), len(text)]
        return [text[start:stop] for start, stop in pairwise(places)]


def code_points(text: str) -> NDArray[np.uint32]:
    """The characters of a text as numbers, uint32 [T]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _hash_pairs(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    mixed = codes[:-1] * np.uint32(2654435761) ^ codes[1:] * np.uint32(40503)
    places: NDArray[np.uint32] = mixed & np.uint32((1 << _BITS) - 1)
    return places
