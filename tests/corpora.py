"""A small labeled corpus in English and Chinese, made of nothing but this file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from data_prep.build import build_corpus
from data_prep.execution import LocalExecutor
from data_prep.settings import BuildSettings
from data_prep.tokenizers.training import train_tokenizer

_ENGLISH = {
    "sea": "wave ship harbour sail tide anchor storm captain island net gull rope deck salt",
    "field": "plough barley meadow oxen harvest furrow seed orchard fence mill hay barn well rain",
}
_COMMON = "the a old every and over under beside near with small great slowly again before"
_CHINESE = {
    "sea": ["海浪", "渔船", "港口", "风帆", "潮水", "船长", "小岛", "灯塔"],
    "field": ["麦田", "农夫", "牧场", "水牛", "收成", "果园", "种子", "谷仓"],
}
_LINKS = ["在", "和", "的", "上", "下", "看见", "靠近", "离开", "慢慢", "今天"]


def _sentence(rng: random.Random, topic: str, language: str) -> str:
    length = rng.randint(2, 12)
    if language == "zh":
        words = [rng.choice(_CHINESE[topic] if i % 2 else _LINKS) for i in range(length)]
        return "".join(words) + rng.choice("。！？")
    topical, common = _ENGLISH[topic].split(), _COMMON.split()
    words = [rng.choice(topical if i % 2 else common) for i in range(length)]
    return " ".join(words).capitalize() + rng.choice(".!?")


def make_documents(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Documents of one word to some forty sentences, most of them short."""
    rng = random.Random(seed)
    documents = []
    for number in range(count):
        topic, language = rng.choice(["sea", "field"]), rng.choice(["en", "zh"])
        sentences = min(40, 1 + int(rng.expovariate(0.25)))
        gap = "" if language == "zh" else " "
        text = gap.join(_sentence(rng, topic, language) for _ in range(sentences))
        if number % 17 == 0:
            text = text[:2]
        documents.append({"text": text, "topic": topic})
    return documents


def build_texts(source: Path, tokenizer: Path, folder: Path, **options: Any) -> Path:
    """Build the corpus `folder` of one input file; `options` are settings of the build."""
    with LocalExecutor(1) as executor:
        build_corpus(BuildSettings.of_files(source, **options), tokenizer, folder, executor)
    return folder


def write_corpus(folder: Path, *, documents: int = 400, labels: bool = True) -> Path:
    """Write a corpus of several shards, and several blocks a shard; return its folder."""
    source = folder / "documents.jsonl"
    lines = (json.dumps(d, ensure_ascii=False) + "\n" for d in make_documents(documents))
    source.write_text("".join(lines), encoding="utf-8")
    train_tokenizer(BuildSettings.of_files(source), folder / "tokenizer", 520, sentinels=16)
    return build_texts(
        source,
        folder / "tokenizer",
        folder / "corpus",
        label_field="topic" if labels else "",
        valid_fraction=0.15,
        block_tokens=900,
        shard_tokens=2500,
    )
