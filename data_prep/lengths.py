"""Writes the lengths of a split's documents: one array for all shards.

With this array and the index, a reader knows which documents are in which block. It can plan its
reads without opening a shard.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.files import open_atomically


@contextmanager
def write_lengths(path: Path) -> Iterator[Callable[[NDArray[np.integer[Any]]], None]]:
    """Write a .npy file of uint32 [documents], version 1.0, part by part.

    The file appears when the `with` statement ends. Memory holds one part at a time.

    Yields:
        A function that appends the token counts of further documents, [D].

    Raises:
        OSError: the disk is full; `path` is unchanged.
    """
    documents = 0
    with open_atomically(path) as file:
        file.write(_header(0))

        def append(lens: NDArray[np.integer[Any]]) -> None:
            nonlocal documents
            documents += len(lens)
            file.write(lens.astype("<u4", copy=False).tobytes())

        yield append
        # numpy pads the header to leave room for more digits, so both headers have one length.
        file.seek(0)
        file.write(_header(documents))


def _header(documents: int) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": "<u4", "fortran_order": False, "shape": (documents,)}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()
