"""Other loaders on the same tokens as `loading_megapt.py`; each case prints JSON.

    python -m benchmarks.loading_peers prepare NAME --tokens F --output D
    python -m benchmarks.loading_peers NAME --data D --workers N

Every peer makes int64 tensors of 8 rows of 2,049 tokens in the main process. A peer that stores a
narrower type sends that type from its workers and widens it on arrival, which is faster than
sending int64; only `nanogpt` works as the original does.
"""

import argparse
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.delivery import ROWS, WINDOW, main

U16 = NDArray[np.uint16]

SHARD_DOCUMENTS = 1000
SHUFFLE_BUFFER = 1000  # Documents; the examples of webdataset use 1,000.
CHUNK_ROWS = 1024  # litdata: 4.2 MB a chunk


def documents(tokens: Path) -> Iterator[U16]:
    """Yield the documents of a file of tokens, in order."""
    text = np.load(tokens, mmap_mode="r")
    ends = np.cumsum(np.load(tokens.with_name("lengths.npy")))
    for start, end in itertools.pairwise([0, *ends.tolist()]):
        yield np.array(text[start:end])


def rows(tokens: Path) -> U16:
    """Return rows of 2,049 successive tokens, uint16 [rows, 2049]."""
    text = np.load(tokens, mmap_mode="r")
    return np.array(text[: len(text) // WINDOW * WINDOW]).reshape(-1, WINDOW)


# ---- numpy memmap


class Memmap(IterableDataset[Any]):
    """Endless batches of rows that start at random tokens of one flat file, uint16 [8, 2049]."""

    def __init__(self, tokens: Path) -> None:
        self.text: U16 = np.load(tokens, mmap_mode="r")

    def starts(self) -> Iterator[list[int]]:
        """Yield the first tokens of the rows of each batch."""
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng(info.id if info else 0)
        while True:
            yield rng.integers(0, len(self.text) - WINDOW, ROWS).tolist()

    def __iter__(self) -> Iterator[Any]:
        for starts in self.starts():
            yield torch.from_numpy(np.stack([self.text[s : s + WINDOW] for s in starts]))


class NanoGpt(Memmap):
    """Inputs and targets as nanoGPT makes them: two tensors, int64 [8, 2048] each."""

    def __iter__(self) -> Iterator[Any]:
        for starts in self.starts():
            pair = [
                [self.text[s + by : s + by + WINDOW - 1].astype(np.int64) for s in starts]
                for by in (0, 1)
            ]
            yield tuple(torch.stack([torch.from_numpy(row) for row in rows]) for rows in pair)


def memmap(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of batches of random rows of a mapped file."""
    for batch in DataLoader(Memmap(options.data), batch_size=None, num_workers=options.workers):
        yield batch.long().numel()


def nanogpt(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of batches of nanoGPT's loader."""
    for x, _ in DataLoader(NanoGpt(options.data), batch_size=None, num_workers=options.workers):
        yield x.numel()


# ---- webdataset


def prepare_webdataset(tokens: Path, output: Path) -> None:
    """Write shards of 1,000 documents; a sample is a document in one .npy."""
    import webdataset as wds

    with wds.ShardWriter(
        str(output / "%05d.tar"), maxcount=SHARD_DOCUMENTS, mtime=0, verbose=0
    ) as writer:
        for number, document in enumerate(documents(tokens)):
            writer.write({"__key__": f"{number:08d}", "tokens.npy": document})


def packed(samples: Iterable[dict[str, Any]]) -> Iterator[tuple[U16, NDArray[np.int32]]]:
    """Yield documents end to end, uint16 [8, 2049], and the start of each document, int32."""
    held: list[U16] = []
    size, room = 0, ROWS * WINDOW
    for sample in samples:
        held.append(sample["tokens.npy"])
        size += len(held[-1])
        while size >= room:
            text = np.concatenate(held)
            starts = np.cumsum([0, *map(len, held[:-1])], dtype=np.int32)
            yield text[:room].reshape(ROWS, WINDOW), starts
            held, size = [text[room:]], size - room


def webdataset(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of batches of webdataset: shards, buffer, decoding, packed in the worker."""
    import webdataset as wds

    shards = sorted(str(path) for path in options.data.glob("*.tar"))
    dataset = (
        wds.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER)
        .decode()
        .compose(packed)
    )
    for batch, _ in DataLoader(dataset, batch_size=None, num_workers=options.workers):
        yield torch.as_tensor(batch).long().numel()


# ---- mosaicml-streaming


def prepare_mds(tokens: Path, output: Path) -> None:
    """Write shards of rows of 2,049 tokens."""
    from streaming import MDSWriter

    columns = {"tokens": f"ndarray:uint16:{WINDOW}"}
    with MDSWriter(out=str(output), columns=columns) as writer:
        for row in rows(tokens):
            writer.write({"tokens": row})


def stack(samples: list[dict[str, U16]]) -> torch.Tensor:
    """Return the rows of the samples as one tensor, uint16 [8, 2049]."""
    return torch.from_numpy(np.stack([sample["tokens"] for sample in samples]))


def mds(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of batches of mosaicml-streaming."""
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(options.data), shuffle=True, batch_size=ROWS)
    for batch in StreamingDataLoader(
        dataset, batch_size=ROWS, num_workers=options.workers, collate_fn=stack, drop_last=True
    ):
        yield batch.long().numel()


# ---- litdata


def document_tensors(tokens: str) -> Iterator[torch.Tensor]:
    """Yield the documents of a file of tokens as tensors."""
    yield from map(torch.from_numpy, documents(Path(tokens)))


def prepare_litdata(tokens: Path, output: Path) -> None:
    """Write chunks of the successive tokens of all documents."""
    from litdata import TokensLoader, optimize

    optimize(
        fn=document_tensors,
        inputs=[str(tokens)],
        output_dir=str(output),
        chunk_size=CHUNK_ROWS * WINDOW,
        item_loader=TokensLoader(),
        num_workers=1,
        verbose=False,
    )


def litdata(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of batches of litdata."""
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    dataset = StreamingDataset(
        str(options.data), item_loader=TokensLoader(WINDOW), shuffle=True, drop_last=True
    )
    for batch in StreamingDataLoader(dataset, batch_size=ROWS, num_workers=options.workers):
        yield batch.long().numel()


CASES = {
    "memmap": memmap,
    "nanogpt": nanogpt,
    "webdataset": webdataset,
    "mds": mds,
    "litdata": litdata,
}
PREPARERS: dict[str, Callable[[Path, Path], None]] = {
    "webdataset": prepare_webdataset,
    "mds": prepare_mds,
    "litdata": prepare_litdata,
}


def prepare() -> None:
    """Write the format of a peer."""
    parser = argparse.ArgumentParser(description=(prepare.__doc__ or "").split("\n")[0])
    parser.add_argument("peer", choices=PREPARERS)
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.npy of loading.py")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(sys.argv[2:])
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    PREPARERS[options.peer](options.tokens, options.output)


if __name__ == "__main__":
    # Must be set before litdata is imported; otherwise it asks PyPI for its newest version.
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    if sys.argv[1:2] == ["prepare"]:
        prepare()
    else:
        main((__doc__ or "").split("\n")[0], CASES)
