"""Random access to shards, through a memory map."""

import io
import json
import mmap
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.blocks import BlockData
from data_prep.errors import DamagedError
from data_prep.files import sha256_of
from data_prep.manifest import FileInfo, ShardInfo, SplitInfo

TAR_HEADER_BYTES = tarfile.BLOCKSIZE
NPY_HEADER_BYTES = 128
_DEFAULTS = {"labels": (-1, np.int32), "corpora": (0, np.uint16)}


def open_shards(folder: Path, split: SplitInfo) -> list["Shard"]:
    """Open the shards of a split, each with its part of the split's index.

    The index is memory-mapped, so the cost is small even for a large corpus.

    Raises:
        DamagedError: the index or a shard is missing or is not what the manifest describes.
    """
    table = read_index(folder, split)
    ends = np.cumsum([info.blocks for info in split.shards])
    return [
        Shard(folder, info, table[end - info.blocks : end])
        for info, end in zip(split.shards, ends.tolist(), strict=True)
    ]


def read_index(folder: Path, split: SplitInfo) -> NDArray[np.int64]:
    """Return the block tables of all shards of a split, int64 [blocks, 3], memory-mapped.

    Raises:
        DamagedError: the file is missing or is not what the manifest describes.
    """
    blocks = sum(info.blocks for info in split.shards)
    return _map_array(folder, split.index, np.int64, (blocks, 3), "index")


def read_lengths(folder: Path, split: SplitInfo) -> NDArray[np.uint32]:
    """Return the token count of every document of a split, uint32 [documents], memory-mapped.

    The order is that of the shards.

    Raises:
        DamagedError: the file is missing or is not what the manifest describes.
    """
    return _map_array(folder, split.lengths, np.uint32, (split.documents,), "lengths")


def _map_array(
    folder: Path, info: FileInfo, kind: type[np.generic], shape: tuple[int, ...], what: str
) -> NDArray[Any]:
    path = folder / info.file
    check_size(path, info)
    wrong = damaged(path, f"not the {what} that the manifest describes")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError:
        raise wrong from None
    if array.dtype != kind or array.shape != shape or array.offset + array.nbytes != info.bytes:
        raise wrong
    return array


def check_size(path: Path, info: FileInfo) -> None:
    """Compare the size of a file with the manifest.

    Raises:
        DamagedError: the file is missing or has another size.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DamagedError(f"{path}: no such file, but the manifest names it") from None
    if size != info.bytes:
        raise damaged(path, f"{size} bytes long, the manifest says {info.bytes}")


def check_sum(path: Path, info: FileInfo) -> None:
    """Read the whole file and compare its checksum with the manifest.

    Raises:
        DamagedError: they differ.
    """
    found = sha256_of(path)
    if found != info.sha256:
        raise damaged(path, f"sha256 is {found}, the manifest says {info.sha256}")


def damaged(path: Path, found: str) -> DamagedError:
    """Return the error for a file that is not what the manifest says."""
    return DamagedError(
        f"{path}: {found}: the file was changed or damaged; build the corpus again or copy it again"
    )


def _read_header(header: bytes) -> tuple[str, int]:
    """Read the name and the size of a tar member, five times as fast as `tarfile` reads all fields.

    Raises:
        ValueError: the checksum is wrong, or this is not a header.
    """
    stored = header[148:156]
    if int(stored.rstrip(b" \0"), 8) != sum(header) - sum(stored) + 8 * ord(" "):
        raise ValueError("the checksum is wrong")
    return header[:100].rstrip(b"\0").decode("ascii"), int(header[124:136].rstrip(b" \0"), 8)


class Shard:
    """Random access to the blocks of one tar through a memory map.

    Opening costs one `stat`. The map is created at the first read, and again in a process to which
    the object was pickled.

    Args:
        folder: the corpus folder.
        info: the shard's entry in the manifest.
        table: byte offset in the tar, documents and tokens of each block, int64 [blocks, 3]; or a
            .npy file with this array, which is read when it is needed.

    Raises:
        DamagedError: the file is missing or has another size than the manifest says.
    """

    def __init__(self, folder: Path, info: ShardInfo, table: NDArray[np.int64] | Path) -> None:
        self.path = Path(folder) / info.file
        self.info = info
        self._table = table
        self._map: mmap.mmap | None = None
        check_size(self.path, info)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    @property
    def table(self) -> NDArray[np.int64]:
        """Byte offset, documents and tokens of each block, int64 [blocks, 3]."""
        if isinstance(self._table, Path):
            loaded: NDArray[np.int64] = np.load(self._table)
            self._table = loaded
        return self._table

    def __len__(self) -> int:
        return len(self.table)

    def lens(self) -> NDArray[np.uint32]:
        """Return the token count of every document, uint32 [documents]."""
        return np.concatenate([self._array(self._members(i), i, "lens") for i in range(len(self))])

    def labels(self) -> NDArray[np.int32]:
        """Return the label of every document, int32 [documents]; all -1 without labels."""
        return np.concatenate(
            [self._or_default(self._members(i), i, "labels") for i in range(len(self))]
        )

    def documents(self, index: int) -> NDArray[np.int64]:
        """Return the input number of each document of a block, int64 [D], increasing."""
        return self._array(self._members(index), index, "documents")

    def block_labels(self, index: int) -> NDArray[np.int32]:
        """Return the label of each document of a block, int32 [D]; all -1 without labels."""
        labels: NDArray[np.int32] = self._or_default(self._members(index), index, "labels")
        return labels

    def tokens(self, index: int) -> NDArray[Any]:
        """Return the tokens of a block, uint16 or uint32 [T], a read-only view of the map."""
        return self._array(self._members(index), index, "tokens")

    def marks(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where words and where sentences start in a block, each bool [T]."""
        members, tokens = self._members(index), int(self.table[index, 2])
        words, sentences = (
            np.unpackbits(self._array(members, index, name), count=tokens).view(np.bool_)
            for name in ("words", "sentences")
        )
        return words, sentences

    def ids(self, index: int) -> NDArray[np.object_]:
        """Return the id of each document of a block, object [D]; all "" without ids."""
        members = self._members(index)
        found = np.full(int(self.table[index, 1]), "", dtype=object)
        if "ids" in members:
            start, size = members["ids"]
            try:
                found[:] = json.loads(self._bytes()[start : start + size])
            except ValueError:
                raise self._damaged(f"no readable ids in block {index}") from None
        return found

    def block(self, index: int, *, with_ids: bool = False) -> BlockData:
        """Return block `index` of this shard; its tokens are a read-only view of the map.

        Raises:
            DamagedError: the bytes are not the block that the manifest describes.
        """
        members = self._members(index)
        words, sentences = self.marks(index)
        documents = int(self.table[index, 1])
        return BlockData(
            tokens=self._array(members, index, "tokens"),
            words=words,
            sentences=sentences,
            lens=self._array(members, index, "lens"),
            bytes=self._array(members, index, "bytes"),
            documents=self._array(members, index, "documents"),
            labels=self._or_default(members, index, "labels"),
            corpora=self._or_default(members, index, "corpora"),
            ids=self.ids(index) if with_ids else np.full(documents, "", dtype=object),
        )

    def close(self) -> None:
        """Release the map and its file handle; the next read creates them again.

        Arrays that were read stay valid.
        """
        self._map = None

    def verify(self) -> None:
        """Read the whole file and compare its checksum with the manifest.

        Raises:
            DamagedError: they differ.
        """
        check_sum(self.path, self.info)

    def _damaged(self, found: str) -> DamagedError:
        return damaged(self.path, found)

    def _bytes(self) -> mmap.mmap:
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _members(self, index: int) -> dict[str, tuple[int, int]]:
        """Return the offset and the size of each member's data in a block, from its headers."""
        data = self._bytes()
        offset = int(self.table[index, 0])
        found: dict[str, tuple[int, int]] = {}
        try:
            while "words" not in found:  # the last member in sorted order
                name, size = _read_header(data[offset : offset + TAR_HEADER_BYTES])
                offset += TAR_HEADER_BYTES
                found[name.split(".")[1]] = (offset, size)
                offset += -(-size // TAR_HEADER_BYTES) * TAR_HEADER_BYTES
        except (ValueError, IndexError):
            raise self._damaged(f"no member header of block {index} at byte {offset}") from None
        return found

    def _array(self, members: dict[str, tuple[int, int]], index: int, name: str) -> NDArray[Any]:
        """Return a member as a read-only array over the map, and check its length."""
        documents, tokens = self.table[index, 1:].tolist()
        packed = -(-tokens // 8)
        length = {"tokens": tokens, "words": packed, "sentences": packed}.get(name, documents)
        try:
            start, size = members[name]
            head = io.BytesIO(self._bytes()[start : start + min(size, NPY_HEADER_BYTES)])
            np.lib.format.read_magic(head)
            shape, _, dtype = np.lib.format.read_array_header_1_0(head)
            array = np.frombuffer(self._bytes(), dtype, shape[0], start + head.tell())
        except (KeyError, ValueError, IndexError):
            raise self._damaged(f"no readable array {name!r} in block {index}") from None
        if len(array) != length:
            raise self._damaged(f"{len(array)} {name} in block {index}, the manifest says {length}")
        return array

    def _or_default(self, members: dict[str, tuple[int, int]], index: int, name: str) -> Any:
        """Return a member that only some corpora have, or its default."""
        if name in members:
            return self._array(members, index, name)
        value, dtype = _DEFAULTS[name]
        return np.full(int(self.table[index, 1]), value, dtype=dtype)
