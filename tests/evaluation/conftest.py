"""Runs that know their few training texts by heart, one an objective."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from megapt.data import Corpus, Piece
from megapt.evaluation import LoadedRun, load_run
from tests.corpora import build_texts
from tests.ranks import run_ranks
from tests.training.runs import run_config, train

TEXTS = {
    "sea": [
        "The old ship and every sail. A storm near the harbour again!",
        "Every captain with a small net. The gull over the great wave.",
        "Great rope beside the anchor under a slowly tide.",
        "渔船在港口看见灯塔。海浪靠近小岛！",
        "今天船长离开港口。",
    ],
    "field": [
        "A plough over the old meadow. Every furrow near a fence again!",
        "Small oxen beside the great mill. The harvest with hay under rain.",
        "Under the orchard a well and slowly barley.",
        "农夫在麦田看见水牛。收成靠近谷仓！",
        "慢慢离开果园的种子。",
    ],
}
WINDOW = 64

# Raw tokens until a run knows its texts; `nsp` and `bert` are only there to be used.
ENOUGH = {"arlm": 12e3, "mgm": 20e3, "mlm": 50e3, "msc": 8e3, "nsp": 1e3, "bert": 2e3}
SETTINGS = {"mlm": {"mask_rate": 0.3, "mask_share": 1.0, "random_share": 0.0}}


@pytest.fixture(scope="session")
def few_texts(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of a handful of short documents in two classes."""
    folder = tmp_path_factory.mktemp("few")
    source = folder / "documents.jsonl"
    documents = [{"text": text, "label": label} for label in TEXTS for text in TEXTS[label]]
    lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    source.write_text("".join(lines), encoding="utf-8")
    # With this seed two of the held-out documents have two sentences: nsp can ask about them.
    return Corpus(build_texts(source, corpus_folder, folder / "corpus", valid_fraction=0.2, seed=2))


@pytest.fixture(scope="session")
def learnt(few_texts: Corpus) -> list[Piece]:
    """The documents that the runs were trained on."""
    return [few_texts.train.piece(document) for document in range(len(few_texts.train))]


@pytest.fixture(scope="session")
def overfitted(
    few_texts: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], LoadedRun]:
    """Open the run of an objective; it is trained when first asked for."""

    @cache
    def run(objective: str) -> LoadedRun:
        config = run_config(
            few_texts.where,
            tmp_path_factory.mktemp(objective) / "run",
            data={"window": WINDOW, "policy": "whole"},
            objective={"name": objective, **SETTINGS.get(objective, {})},
            model={"layers": 2, "hidden": 32, "feedforward": 64},
            optimizer={"lr": 1e-2, "weight_decay": 0.0, "eps": 1e-8},
            training={
                "budget": {"amount": ENOUGH[objective]},
                "global_batch": 2,
                "micro_batch": 2,
                "validate_every": 0,
                "log_every": 50,
            },
        )
        run_ranks(1, train, config)
        return load_run(config.output)

    return run
