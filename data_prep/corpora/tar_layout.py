"""Compares the bytes of a tar with what the format prescribes, and reports differences.

The tar is not read through a tar library, which skips what it does not understand. The index gives
the number of documents and tokens of each block. Every header follows from these numbers, so any
other byte is a fault.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.corpora.content_checks import DecodedBlock
from data_prep.manifest import FORMAT, Manifest
from data_prep.shard_writer import INDEX_MEMBER, token_dtype


class TarMember(NamedTuple):
    """A member that a block must have; `dtype` is None for the JSON list of ids."""

    file: str
    name: str
    dtype: "np.dtype[Any] | None"
    length: int

    def head(self) -> bytes:
        """Return the header of the .npy file, version 1.0; empty for JSON."""
        if self.dtype is None:
            return b""
        buffer = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        fields = {"descr": descr, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()


def block_members(manifest: Manifest, key: int, documents: int, tokens: int) -> list[TarMember]:
    """Return the members that block `key` of a corpus must have, in their order."""
    packed = -(-tokens // 8)
    arrays: list[tuple[str, Any, int]] = [("bytes", "<u4", documents)]
    if manifest.corpora:
        arrays.append(("corpora", "<u2", documents))
    arrays.append(("documents", "<i8", documents))
    if manifest.keeps_ids:
        arrays.append(("ids", None, documents))
    if manifest.labels:
        arrays.append(("labels", "<i4", documents))
    arrays += [
        ("lens", "<u4", documents),
        ("sentences", "|u1", packed),
        ("tokens", token_dtype(manifest.vocabulary.size), tokens),
        ("words", "|u1", packed),
    ]
    return [
        TarMember(f"{key:08d}.{name}.npy", name, np.dtype(dtype), length)
        if dtype is not None
        else TarMember(f"{key:08d}.{name}.json", name, None, length)
        for name, dtype, length in arrays
    ]


def read_block(
    region: bytes, expected: list[TarMember]
) -> tuple[DecodedBlock | None, int | None, list[str]]:
    """Read the members of a block, and check each against what is expected.

    Args:
        region: the bytes from the beginning of the block.
        expected: the members that the block must have, in order.

    Returns:
        The arrays of the block, its size in bytes, and the faults of its members. The first two are
        None if a damaged or truncated member hides them.
    """
    faults: list[str] = []
    arrays: dict[str, NDArray[Any]] = {}
    ids: list[str] | None = None
    place = 0
    for member in expected:
        head = member.head()
        header = region[place : place + tarfile.BLOCKSIZE]
        if len(header) < tarfile.BLOCKSIZE:
            return None, None, [*faults, f"cut off before member {member.file}"]
        if member.dtype is not None:
            size = len(head) + member.length * member.dtype.itemsize
        else:
            try:
                size = tarfile.TarInfo.frombuf(header, "ascii", "strict").size
            except (tarfile.HeaderError, UnicodeDecodeError):
                return None, None, [*faults, f"no readable tar header of member {member.file}"]
        place += tarfile.BLOCKSIZE
        body = region[place : place + size]
        padding = region[place + size : place + _padded(size)]
        place += _padded(size)
        if len(body) + len(padding) < _padded(size):
            return None, None, [*faults, f"cut off in member {member.file}"]
        found: str | None = None
        if any(padding):
            found = "the padding after it is not zero"
        if member.dtype is None:
            ids = _parsed_ids(body, member.length)
            if ids is None:
                found = f"not a JSON list of {member.length} strings"
        elif body.startswith(head):
            arrays[member.name] = np.frombuffer(body, member.dtype, offset=len(head))
        else:
            found = f"not an array {member.dtype} [{member.length}]"
        # If another member is here, this is the only fault worth reporting.
        if header != _tar_header(member.file, size):
            found = "the tar header there is not that of this member"
        if found:
            faults.append(f"member {member.file}: {found}")
    complete = len(arrays) == sum(member.dtype is not None for member in expected)
    return DecodedBlock(arrays, ids) if complete else None, place, faults


def _parsed_ids(body: bytes, length: int) -> list[str] | None:
    try:
        ids = json.loads(body)
    except ValueError:
        return None
    if not isinstance(ids, list) or len(ids) != length:
        return None
    return ids if all(isinstance(id_, str) for id_ in ids) else None


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _tar_header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def trailer_faults(trailer: bytes, rows: list[list[int]]) -> Iterator[str]:
    """Yield the faults after the last block, where only the block table and zeros may follow."""
    index = json.dumps({"format": FORMAT, "blocks": rows}, separators=(",", ":")).encode()
    expected = _tar_header(INDEX_MEMBER, len(index)) + index
    expected += bytes(_padded(len(index)) - len(index))
    if not trailer.startswith(expected):
        yield f"member {INDEX_MEMBER} is not the block table of the index"
    end = trailer[len(expected) :]
    if len(end) < 2 * tarfile.BLOCKSIZE:
        yield "the tar does not end with two blocks of zeros"
    if any(end):
        yield "non-zero bytes follow the last member"
