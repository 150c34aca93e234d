"""Corpora that lack something, and runs that several tests look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from megapt.config import RunConfig
from tests.corpora import build_texts, make_documents
from tests.objectives.builders import preset
from tests.ranks import run_ranks
from tests.training.runs import run_config, train

Documents = Sequence[dict[str, str]]


@pytest.fixture(scope="session")
def build(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a corpus of documents with the tokenizer of the usual one."""

    def write(documents: Documents) -> Path:
        folder = tmp_path_factory.mktemp("special")
        source = folder / "documents.jsonl"
        source.write_text("".join(json.dumps(d) + "\n" for d in documents), encoding="utf-8")
        field = "topic" if any("topic" in document for document in documents) else ""
        return build_texts(
            source, corpus_folder, folder / "corpus", label_field=field, valid_fraction=0.2
        )

    return write


@pytest.fixture(scope="session")
def partly_labeled(build: Callable[..., Path]) -> Path:
    """A corpus in which one document of six has a class."""
    documents = make_documents(200, seed=1)
    for number, document in enumerate(documents):
        if number % 6:
            del document["topic"]
    return build(documents)


@pytest.fixture(scope="session")
def sentences(build: Callable[..., Path]) -> Path:
    """A corpus without classes, in which every document is one sentence."""
    texts = [document["text"] for document in make_documents(300, seed=2)]
    first = {re.split("[.!?。！？]", text)[0] for text in texts}
    return build([{"text": text} for text in sorted(first) if len(text) > 5])


@pytest.fixture(scope="session")
def trained(
    corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunConfig]:
    """Train a run on one rank with these settings, once, and return its configuration."""

    @cache
    def run(objective: str = "arlm", **training: Any) -> RunConfig:
        config = run_config(
            corpus_folder,
            tmp_path_factory.mktemp("trained") / "run",
            objective=preset(objective),
            training=training,
        )
        run_ranks(1, train, config)
        return config

    return run
