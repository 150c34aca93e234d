"""What all tests share: one small corpus, built once, and the streams over it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from megapt.data import Corpus, Vocabulary, WindowStream
from tests.corpora import write_corpus
from tests.windows import VOCABULARY

# A shell ignores these for what it starts in the background, and a process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

pytest_plugins = ["tests.trained"]

# The same examples in every run: a failure is a finding, never the luck of the day.
settings.register_profile("megapt", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("megapt")
# The models of the tests are so small that a second thread only waits for the first.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An English and Chinese corpus in which every document has one of two classes."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder)


@pytest.fixture(scope="session")
def make_stream(corpus: Corpus) -> Callable[..., WindowStream]:
    """Make a stream over the corpus; keyword arguments override the usual settings."""

    def make(
        split: str = "train",
        fingerprint: str | None = None,
        corpus: Corpus = corpus,
        **changes: object,
    ) -> WindowStream:
        usual = {
            "seed": 1,
            "window": 64,
            "window_policy": "fill",
            "shuffle_buffer_shards": 2,
            "shuffle_buffer_blocks": 3,
            "lanes": 4,
        }
        return WindowStream(
            corpus.splits[split],
            fingerprint or corpus.fingerprint,
            **{**usual, **changes},  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """Of no tokenizer: 33 reserved ids and 167 ordinary ones."""
    return VOCABULARY
