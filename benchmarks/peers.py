"""Peers of `megapt-prep build`; each prints the number of its tokens as JSON.

    python -m benchmarks.peers bare      --input F --tokenizer M
    python -m benchmarks.peers megatron  --input F --tokenizer M --output D --workers N
    python -m benchmarks.peers datatrove --input DIR --tokenizer J --output D --workers N
    python -m benchmarks.peers train     --input F --output J

`bare` also prints the seconds of its loop: wall-clock and processor time.
"""

import argparse
import json
import multiprocessing
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm

CHUNK_DOCUMENTS = 32
SPECIAL_TOKENS = [f"[{name}]" for name in ("PAD", "UNK", "BOS", "EOS", "CLS", "SEP", "MASK")]
SPECIAL_TOKENS += [f"[{name}]" for name in ("NLU", "NLG", "S2S", "PRE", "SUF", "MID")]
SPECIAL_TOKENS += [f"<extra_id_{number}>" for number in range(100)]


def bare(options: argparse.Namespace) -> dict[str, float]:
    """Encode with SentencePiece, text by text, from memory; the ids are discarded."""
    processor = spm.SentencePieceProcessor(model_file=str(options.tokenizer))
    with open(options.input, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    began, began_cpu = time.perf_counter(), time.process_time()
    tokens = 0
    for text in texts:
        tokens += len(processor.encode(text))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu_seconds}


class Encoder:
    """The work of one process of a Megatron-style pool: from a line to a list of ids."""

    processor: spm.SentencePieceProcessor

    def __init__(self, model: str) -> None:
        self.model = model

    def start(self) -> None:
        """Load the model; called once in each process."""
        Encoder.processor = spm.SentencePieceProcessor(model_file=self.model)

    def encode(self, line: str) -> tuple[list[int], int]:
        """Return the ids of a document with an end token, and the length of its line."""
        ids = Encoder.processor.encode(json.loads(line)["text"])
        ids.append(Encoder.processor.eos_id())
        return ids, len(line)


class IndexedWriter:
    """Writer of flat tokens in .bin, and of the length and offset of every document in .idx."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.file = open(prefix.with_suffix(".bin"), "wb")  # noqa: SIM115 - closed in finish
        self.lengths: list[int] = []

    def add(self, ids: list[int]) -> None:
        """Append a document."""
        self.file.write(np.array(ids, dtype=np.uint16).tobytes())
        self.lengths.append(len(ids))

    def finish(self) -> None:
        """Write the index."""
        self.file.close()
        lengths = np.array(self.lengths, dtype=np.int32)
        offsets = (np.cumsum(lengths, dtype=np.int64) - lengths) * 2
        with open(self.prefix.with_suffix(".idx"), "wb") as index:
            index.write(b"MMIDIDX\x00\x00")
            index.write(struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1))
            index.write(lengths.tobytes() + offsets.tobytes())
            index.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())


def megatron(options: argparse.Namespace) -> dict[str, float]:
    """Encode in a pool that returns lists of ids; the parent writes them, in order."""
    options.output.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(str(options.tokenizer))
    writer = IndexedWriter(options.output / "corpus")
    with (
        multiprocessing.Pool(options.workers, initializer=encoder.start) as pool,
        open(options.input, encoding="utf-8") as lines,
    ):
        for ids, _ in pool.imap(encoder.encode, lines, CHUNK_DOCUMENTS):
            writer.add(ids)
    writer.finish()
    return {"tokens": sum(writer.lengths)}


def datatrove(options: argparse.Namespace) -> dict[str, float]:
    """Run datatrove's reader and tokenizer, one task per worker; documents keep their order."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    steps: list[Any] = [
        JsonlReader(str(options.input)),
        DocumentTokenizer(
            str(options.output / "tokens"),
            tokenizer_name_or_path=str(options.tokenizer),
            eos_token="[EOS]",
            shuffle_documents=False,
        ),
    ]
    LocalPipelineExecutor(
        pipeline=steps,
        tasks=options.workers,
        workers=options.workers,
        logging_dir=str(options.output / "logs"),
    ).run()
    return {"tokens": sum(file.stat().st_size for file in options.output.rglob("*.ds")) // 2}


def train(options: argparse.Namespace) -> dict[str, float]:
    """Train a byte-level BPE tokenizer.json of 32,000 pieces, with the pieces that build needs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with open(options.input, encoding="utf-8") as lines:
        tokenizer.train_from_iterator((json.loads(line)["text"] for line in lines), trainer)
    tokenizer.save(str(options.output))
    return {"tokens": 0}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    peers = {"bare": bare, "megatron": megatron, "datatrove": datatrove, "train": train}
    parser.add_argument("peer", choices=peers)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(peers[options.peer](options)))


if __name__ == "__main__":
    main()
