"""Speed of tokenization, and whether faster ways give the same ids.

    python -m benchmarks.tokenization english.jsonl chinese.jsonl

trains a SentencePiece unigram model, a SentencePiece BPE model and a byte-level BPE of Hugging Face
on a sample of all files together. Then it encodes the documents of each file one by one in every
way, in turn. tiktoken gets the merges of the byte-level BPE. Every turn begins with an empty cache.
Times are CPU seconds of one thread.
"""

import argparse
import json
import pickle
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rjieba
import tiktoken
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from benchmarks.common import header, interleave, print_header, spread, table
from data_prep.marks import Marker
from data_prep.tokenizers import Tokenizer
from data_prep.tokenizers.adopt import adopt_tokenizer
from data_prep.tokenizers.huggingface import byte_characters
from data_prep.tokenizers.sentencepiece_model import SentencePieceTokenizer, load_processor
from data_prep.tokenizers.training import draw_sample, train_model

GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # of tiktoken
)

Encode = Callable[[str], Any]


class Way(NamedTuple):
    """A way to encode."""

    name: str
    """Its name in the table."""
    make: Callable[[], Encode]
    """Returns a function from a text to its ids, with an empty cache."""
    reference: str
    """Name of the way whose ids it should give."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=Path, help=".jsonl with a field text")
    parser.add_argument("--megabytes", type=float, default=10, help="of text of each file")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    texts = {
        file.stem: read_texts(file, int(arguments.megabytes * 1e6)) for file in arguments.files
    }
    sample = draw_sample(chain.from_iterable(texts.values()), 20_000_000, 0)
    with tempfile.TemporaryDirectory() as folder:
        ways = make_ways(sample, arguments.vocab_size, Path(folder))
    found = {name: measure(ways, documents, arguments.repeat) for name, documents in texts.items()}
    if arguments.json:
        print(json.dumps({"header": header(), "files": found}, ensure_ascii=False))
        return
    print_header(header())
    for name, rows in found.items():
        documents = texts[name]
        size = sum(map(utf8_bytes, documents))
        print(f"### {name}: {len(documents)} documents, {size / 1e6:.1f} MB\n")
        cells = [[w, spread(row["mb_per_s"]), row["ids"]] for w, row in rows.items()]
        print(table(["way", "MB/s: median (range)", "documents with the same ids"], cells))


def read_texts(file: Path, most_bytes: int) -> list[str]:
    """Return the first texts of a file, with about `most_bytes` bytes in total."""
    texts: list[str] = []
    held = 0
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            held += utf8_bytes(texts[-1])
            if held >= most_bytes:
                break
    return texts


def utf8_bytes(text: str) -> int:
    """Return the size of a text in UTF-8."""
    return len(text.encode())


def make_ways(sample: Sequence[str], vocab_size: int, folder: Path) -> list[Way]:
    """Train the models and return the ways; the first way of each model is the library's."""
    ways: list[Way] = []
    for kind in ("unigram", "bpe"):
        data = train_model(sample, vocab_size, kind, 0.9995, 100)  # type: ignore[arg-type]
        tokenizer = SentencePieceTokenizer(data, kind)
        library = f"SentencePiece {kind}, encode"
        ways += [
            Way(library, lambda d=data: load_processor(d, "").encode, library),  # type: ignore[misc]
            Way(f"megapt {kind}", fresh(tokenizer), library),
        ]
        if kind == "unigram":
            ways += [
                Way("megapt unigram, marks", with_marks(tokenizer, "pieces"), library),
                Way("megapt unigram, marks, jieba", with_marks(tokenizer, "jieba"), library),
                Way("unigram, word by word", lambda d=data: by_words(d), library),  # type: ignore[misc]
            ]
    return ways + make_byte_level_ways(sample, vocab_size, folder)


def fresh(tokenizer: Tokenizer) -> Callable[[], Encode]:
    """Return a factory of encoders with an empty cache."""
    packed = pickle.dumps(tokenizer)
    return lambda: pickle.loads(packed).encode  # type: ignore[no-any-return]


def with_marks(tokenizer: Tokenizer, words: str) -> Callable[[], Encode]:
    """Return an encoder that also marks, one document at a time, which is slower than many."""
    marker = Marker(tokenizer, words)  # type: ignore[arg-type]

    def encode(text: str) -> Any:
        ids = tokenizer.encode(text)
        if len(ids):
            marker.mark([text], ids, np.array([len(ids)], dtype=np.uint32))
        return ids

    return lambda: encode


def by_words(data: bytes) -> Encode:
    """Return an encoder with a cache of words: every word is encoded alone, with its space."""
    processor = load_processor(data, "")
    known: dict[str, list[int]] = {}
    anchor = len(processor.encode("\n"))

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for word in re.findall(" *[^ ]+| +", " " + text):
            if word not in known:
                known[word] = processor.encode("\n" + word)[anchor:]
            ids += known[word]
        return ids

    return encode


def make_byte_level_ways(sample: Sequence[str], vocab_size: int, folder: Path) -> list[Way]:
    """Train a byte-level BPE and return the ways to use it."""
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.train_from_iterator(
        sample,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    path = folder / "tokenizer.json"
    library.save(str(path))
    adopted = adopt_tokenizer(path, folder / "adopted")
    to_byte = byte_characters()
    ranks = {bytes(to_byte[c] for c in piece): id_ for piece, id_ in library.get_vocab().items()}
    other = tiktoken.Encoding(
        "same", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )

    def own() -> Encode:
        new = LibraryTokenizer.from_str(library.to_str())  # A new tokenizer has an empty cache.
        return lambda text: new.encode(text, add_special_tokens=False).ids

    def batch_fast() -> Encode:
        new = LibraryTokenizer.from_str(library.to_str())
        return lambda text: new.encode_batch_fast([text], add_special_tokens=False)[0].ids

    name = "tokenizers byte-level BPE, encode"
    return [
        Way(name, own, name),
        Way("tokenizers byte-level BPE, encode_batch_fast", batch_fast, name),
        Way("tiktoken, the same merges", lambda: other.encode_ordinary, name),
        Way("tiktoken, encode_to_numpy", lambda: other.encode_to_numpy, name),
        Way("megapt byte-level BPE", fresh(adopted), name),
    ]


def measure(ways: Iterable[Way], texts: Sequence[str], repeat: int) -> dict[str, dict[str, Any]]:
    """Return MB/s of every way, and the number of texts with the ids of its reference."""
    rjieba.cut("我们")  # Loads its dictionary.
    size = sum(map(utf8_bytes, texts))
    ids: dict[str, list[list[int]]] = {}

    def run(way: Way) -> float:
        encode = way.make()
        began = time.process_time()
        found = [encode(text) for text in texts]
        seconds = time.process_time() - began
        if way.name not in ids:
            ids[way.name] = [list(map(int, one)) for one in found]
        return size / seconds / 1e6

    named = {way.name: way for way in ways}
    rates = interleave({name: lambda w=way: run(w) for name, way in named.items()}, repeat)  # type: ignore[misc]
    same = {
        name: sum(a == b for a, b in zip(ids[name], ids[way.reference], strict=True))
        for name, way in named.items()
    }
    return {
        name: {"mb_per_s": rates[name], "ids": f"{same[name]} of {len(texts)}"} for name in named
    }


if __name__ == "__main__":
    main()
