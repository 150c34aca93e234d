"""Runs that know their few training texts by heartbeat, one an objective."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from megapt.data import Corpus, Piece
from megapt.evaluation import LoadedRun, load_run
from tests.corpora import build_texts
from tests.once import once
from tests.ranks import run_ranks
from tests.training.runs import run_config, train

# No two texts begin alike, and of a text no word occurs twice: what is shown of it tells what is
# missing. They have three sentences because `sop` leaves out the first.
TEXTS = {
    ("train", "sea"): [
        "Old ship the sail. A storm near! Every net.",
        "Great rope over deck. Again a gull? Under tide.",
        "渔船在港口。海浪看见灯塔！今天离开。",
    ],
    ("train", "field"): [
        "Small oxen beside mill. The hay! Before rain.",
        "Near plough every meadow. And fence? Slowly barn.",
        "农夫在麦田。收成靠近谷仓！慢慢的。",
    ],
    ("valid", "sea"): ["With rope beside gull. Again the tide! Over salt."],
    ("valid", "field"): ["A orchard under seed. Slowly well! Great hay."],
}
WINDOW = 64
BATCH = 16
COPIES = 16
"""Of each text, so that an update sees it under many draws."""
ALONE_OF_ITS_KIND = ("nsp", "bert")
"""Would call the second part of a copy wrong: they learn from one copy."""

# Updates until a run knows its texts.
ENOUGH = {
    "arlm": 80,
    "mgm": 80,
    "mlm": 120,
    "msc": 120,
    "nsp": 150,
    "sop": 60,
    "bert": 600,
    "prefix_lm": 80,
    "span_corruption": 150,
    "infilling": 100,
    "ul2": 500,
    "fim": 400,
    "diffusion": 200,
    "electra": 250,
    "mixture": 120,
}
_ALL_MASKED = {"mask_rate": 0.3, "mask_replace_prob": 1.0, "random_replace_prob": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "mlm": _ALL_MASKED,
    "msc": _ALL_MASKED,
    # Read at [CLS], the pair is learnt far more slowly.
    "bert": {**_ALL_MASKED, "mask_rate": 0.15, "pooling": "pair"},
    "electra": {"generator_size": 1.0},
    "mixture": {"members": {"arlm": {"name": "arlm"}, "mlm": {"name": "mlm", **_ALL_MASKED}}},
}


def _build(folder: Path, tokenizer: Path, copies: int) -> Corpus:
    """Build a corpus of the texts, those for training several times."""
    documents = [
        {"text": text, "label": label, "split": split}
        for (split, label), texts in TEXTS.items()
        for text in texts * (copies if split == "train" else 1)
    ]
    source = folder / "documents.jsonl"
    lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    source.write_text("".join(lines), encoding="utf-8")
    # With seed 0 each of the two groups falls on the side that it is named after.
    options = {"group_field": "split", "valid_fraction": 0.5, "seed": 0}
    return Corpus(build_texts(source, tokenizer, folder / "corpus", **options))


@pytest.fixture(scope="session")
def few_texts(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of copies of a handful of short documents in two classes."""
    return _build(tmp_path_factory.mktemp("few"), corpus_folder, COPIES)


@pytest.fixture(scope="session")
def single_texts(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same documents, each once."""
    return _build(tmp_path_factory.mktemp("single"), corpus_folder, 1)


@pytest.fixture(scope="session")
def learnt(single_texts: Corpus) -> list[Piece]:
    """The documents that the runs were trained on."""
    return [single_texts.train.piece(document) for document in range(len(single_texts.train))]


@pytest.fixture(scope="session")
def overfitted(
    few_texts: Corpus, single_texts: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], LoadedRun]:
    """Open the run of an objective; it is trained when first asked for."""

    def run(objective: str, folder: Path) -> None:
        single = objective in ALONE_OF_ITS_KIND
        corpus, batch = (single_texts, 2) if single else (few_texts, BATCH)
        config = run_config(
            Path(corpus.where),
            folder / "run",
            data={"window": WINDOW, "window_policy": "whole"},
            objective={"name": objective, **SETTINGS.get(objective, {})},
            # Weights as small as those of a wide model would say nothing at first in this one.
            model={"num_layers": 2, "hidden_size": 32, "intermediate_size": 64, "init_std": 0.1},
            optimizer={"lr": 1e-2, "weight_decay": 0.0, "eps": 1e-8},
            training={
                "budget": {"amount": float(ENOUGH[objective] * batch * WINDOW)},
                "global_batch_size": batch,
                "micro_batch_size": batch,
                "validate_every": 0,
                "log_every": 50,
            },
        )
        run_ranks(1, train, config)

    @cache
    def opened(objective: str) -> LoadedRun:
        folder = once(tmp_path_factory, f"overfitted-{objective}", partial(run, objective))
        return load_run(folder / "run")

    return opened
