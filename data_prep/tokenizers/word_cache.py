"""Encode a text in small parts, each of which is encoded once and then looked up.

A merge of BPE joins two adjacent pieces to a piece of the vocabulary. If two characters are
adjacent in no piece, no merge ever crosses the boundary between them. So the ids of a text are
exactly the concatenated ids of its parts. In English text these parts are words, and most words
of a text occurred before.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[Sequence[str]], Sequence[NDArray[np.int32]]]

# With these limits, a full cache of English words takes about 40 MB.
CACHED_PARTS = 1 << 18
CACHED_CHARACTERS = 32
_BITS = 22  # of the index of the table of neighbors, which takes 4 MiB


class WordCache:
    """A cache of the ids of parts of texts.

    It is cleared when it is full. The results do not depend on its content.

    Args:
        encode: returns the ids of each part as they are inside a text, int32.
        parts: maximum number of parts in the cache.
    """

    def __init__(self, encode: Encode, parts: int = CACHED_PARTS) -> None:
        self._encode = encode
        self._limit = parts
        self._known: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._known)

    def encode(self, parts: Sequence[str]) -> NDArray[np.int32]:
        """Return the concatenated ids of parts, int32 [T]."""
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
    """The pairs of characters that are adjacent in a piece of a vocabulary.

    The pairs are stored as flags of a hash table. If two pairs share a flag, a text may not be cut
    at a place where it could be. Then parts are longer, but never wrong.

    Args:
        pieces: the pieces of ordinary text, with spaces instead of "▁".
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self._joined = np.zeros(1 << _BITS, dtype=np.bool_)
        for piece in pieces:
            self._joined[_hash_pairs(code_points(piece))] = True

    def cut(self, text: str, codes: NDArray[np.uint32]) -> list[str]:
        """Cut a text (`codes` are its code points [T]) wherever no piece joins two characters."""
        cuts = np.flatnonzero(~self._joined[_hash_pairs(codes)]) + 1
        places = [0, *cuts.tolist(), len(text)]
        return [text[start:stop] for start, stop in pairwise(places)]


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points of a text, uint32 [T]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _hash_pairs(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    mixed = codes[:-1] * np.uint32(2654435761) ^ codes[1:] * np.uint32(40503)
    places: NDArray[np.uint32] = mixed & np.uint32((1 << _BITS) - 1)
    return places
