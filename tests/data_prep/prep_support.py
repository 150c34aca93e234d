"""Text and files for the tests of data_prep."""

import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import data_prep
from data_prep.blocks import BlockData
from data_prep.build import build_corpus
from data_prep.execution import LocalExecutor
from data_prep.manifest import Manifest
from data_prep.settings import BuildSettings
from data_prep.shard_writer import npy
from data_prep.shards import open_shards, read_lengths
from data_prep.tokenizers import load_tokenizer

ENGLISH = (
    "the a river mountain letter teacher walks reads under over quickly bright old new city "
    "garden bread music train window stone winter summer friend answer question seven"
)
CHINESE = "我们 今天 去 北京 学习 音乐 老师 朋友 很 高兴 这 本 书 非常 好 山 河 城市 火车 窗户 冬天"


def english_text(rng: random.Random, sentences: int) -> str:
    parts = [" ".join(rng.choices(ENGLISH.split(), k=rng.randint(3, 12))) for _ in range(sentences)]
    return " ".join(part.capitalize() + rng.choice(".!?") for part in parts)


def chinese_text(rng: random.Random, sentences: int) -> str:
    parts = ["".join(rng.choices(CHINESE.split(), k=rng.randint(3, 12))) for _ in range(sentences)]
    return "".join(part + rng.choice("。！？") for part in parts)


def make_documents(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Documents half English, half Chinese, with a label, a group and some newlines."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        text = (english_text, chinese_text)[number % 2](rng, rng.randint(1, 8))
        if number % 7 == 0:
            text += "\n\n" + english_text(rng, 2)
        label = ("english", "chinese")[number % 2]
        made.append({"id": number, "text": text, "label": label, "group": f"g{number // 5}"})
    return made


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Outcome:
    """How a run of the command ended."""

    code: int
    out: str
    err: str


Prep = Callable[..., Outcome]


def command(*arguments: object) -> list[str]:
    """The command line of `megapt-prep` in a process of its own."""
    return [sys.executable, "-m", "data_prep.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """An environment in which such a process finds this copy of the package."""
    return {**os.environ, "PYTHONPATH": str(Path(data_prep.__file__).parents[1])}


def build(
    inputs: Sequence[Path],
    tokenizer: Path,
    output: Path,
    *,
    workers: int = 1,
    unit_bytes: int | None = None,
    **options: Any,
) -> Manifest:
    """Build a corpus of small blocks and shards in local processes."""
    chosen = {"valid_fraction": 0.1, "block_tokens": 700, "shard_tokens": 2500, **options}
    settings = BuildSettings.of_files(*inputs, **chosen)
    with LocalExecutor(workers, settings.record_seconds) as executor:
        manifest, _ = build_corpus(settings, tokenizer, output, executor, unit_bytes=unit_bytes)
    return manifest


def read_split(folder: Path, split: str) -> list[BlockData]:
    """All blocks of a split, with the documents' ids."""
    shards = open_shards(folder, Manifest.load(folder).splits[split])
    return [shard.block(index, with_ids=True) for shard in shards for index in range(len(shard))]


def assert_lengths(folder: Path) -> None:
    """See that the lengths of each split are the `lens` of its shards, one after another."""
    for split, info in Manifest.load(folder).splits.items():
        lengths = read_lengths(folder, info)
        assert lengths.dtype == np.dtype("<u4")
        lens = [block.lens for block in read_split(folder, split)]
        np.testing.assert_array_equal(lengths, np.concatenate(lens))
        assert (folder / info.lengths.file).read_bytes() == npy(np.concatenate(lens))


def read_texts(folder: Path, split: str) -> dict[int, str]:
    """Text of every document of a split by its number."""
    tokenizer = load_tokenizer(folder)
    texts: dict[int, str] = {}
    for block in read_split(folder, split):
        ends = np.cumsum(block.lens)
        for number, end, length in zip(block.documents, ends, block.lens, strict=True):
            texts[int(number)] = tokenizer.decode(block.tokens[end - length : end])
    return texts


def all_texts(folder: Path) -> dict[int, str]:
    """Text of every document of a corpus by its number."""
    return read_texts(folder, "train") | read_texts(folder, "valid")


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
