"""Other corpora for the tests of the loader, with the tokenizer of the usual one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from megapt.data import Corpus
from tests.corpora import build_texts, make_documents


@pytest.fixture(scope="session")
def build_another(
    corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Build a corpus of documents; keyword arguments override the usual settings."""

    def build(documents: Sequence[Mapping[str, str]], **options: object) -> Path:
        folder = tmp_path_factory.mktemp("another")
        source = folder / "documents.jsonl"
        source.write_text("".join(json.dumps(document) + "\n" for document in documents))
        usual = {"valid_fraction": 0.2, "block_tokens": 400, "shard_tokens": 1000}
        tokenizer = corpus_folder.parent / "tokenizer"
        return build_texts(source, tokenizer, folder / "corpus", **{**usual, **options})

    return build


@pytest.fixture(scope="session")
def small_folder(build_another: Callable[..., Path]) -> Path:
    """A corpus of a quarter of the size of the usual one, with the same labels."""
    return build_another(make_documents(100, seed=1), label_field="topic")


@pytest.fixture
def small(small_folder: Path) -> Corpus:
    return Corpus(small_folder)
