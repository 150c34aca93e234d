"""Corpora for comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpora import build_texts


@pytest.fixture(scope="module")
def unlabeled(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual corpus built without its classes."""
    folder = tmp_path_factory.mktemp("unlabeled")
    source = corpus_folder.with_name("documents.jsonl")
    return build_texts(
        source, corpus_folder, folder / "corpus", label_field="", valid_fraction=0.15
    )
