"""An attention backend of the user's own, from one file: trained, resumed, planned, refused."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from megapt.config import Origins, RunConfig, load_config
from megapt.errors import ConfigError
from megapt.model.attention import BACKENDS, find_backend
from tests.ranks import run_ranks
from tests.training.runs import (
    assert_follows,
    records_of,
    run_config,
    train,
    train_to_refusal,
    train_with_signal,
)

DENSE = """
import torch

from megapt.model.attention import Backend
from megapt.model.attention.backend import example_ids


class Dense(Backend):
    name = "dense"
    {more}

    def __init__(self, batch):
        ids = example_ids(batch)
        here = torch.arange(len(ids), device=ids.device)
        seen = (here[None, :] <= here[:, None]) | batch.visible[None, :]
        self.mask = (ids[:, None] == ids[None, :]) & seen

    def attend(self, q, k, v, dropout):
        scores = torch.einsum("qhw,khw->hqk", q, k) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~self.mask, float("-inf")).softmax(dim=-1)
        return torch.einsum("hqk,khw->qhw", weights, v)
"""


def written(folder: Path, more: str = "pass") -> Path:
    file = folder / "dense.py"
    file.write_text(DENSE.format(more=more), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("objective", "parallel"),
    [("mgm", {"zero_stage": 1}), ("arlm", {"zero_stage": 2, "sequence_parallel_size": 2})],
)
def test_a_run_with_it_is_that_with_grouped_and_goes_on(
    corpus_folder: Path, tmp_path: Path, objective: str, parallel: dict[str, Any]
) -> None:
    own = {"attention": {"name": "dense", "file": str(written(tmp_path))}}

    def config(folder: str, **training: Any) -> RunConfig:
        named = {"name": objective}
        output = tmp_path / folder
        return run_config(
            corpus_folder, output, objective=named, parallel=parallel, training=training
        )

    run_ranks(2, train, config("grouped"))
    broken = config("own", **own)
    assert run_ranks(2, train_with_signal, broken, signal.SIGTERM, 3) == [None] * 2
    assert (tmp_path / "own/training.attention.py").is_file()
    run_ranks(2, train, broken)
    assert_follows(records_of(broken), records_of(config("grouped")), 1e-4)


@pytest.mark.parametrize(
    ("more", "sections", "says"),
    [
        ("rows = True", {}, "'dense' needs batches in rows; set training.row_length"),
        ("problem = classmethod(lambda *_: 'needs luck')", {}, "'dense' needs luck"),
        ("pass", {"model": {"dropout": 0.1}}, "attention 'dense' cannot drop weights"),
    ],
)
def test_it_is_refused_where_it_says_that_it_cannot_run(
    corpus_folder: Path, tmp_path: Path, more: str, sections: dict[str, Any], says: str
) -> None:
    training = {"attention": {"name": "dense", "file": str(written(tmp_path, more))}}
    config = run_config(corpus_folder, tmp_path / "run", training=training, **sections)
    [text] = run_ranks(1, train_to_refusal, config)
    assert text.startswith("ConfigError: ")
    assert says in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("flash", "training.attention.name: no attention backend named 'flash'; valid: "),
        ("xyz", "valid: flex, grouped, rows, varlen"),
        ({"name": "dense", "file": "none.py"}, "training.attention.file: .*no such Python file"),
        ({"name": "grouped", "size": 3}, "training.attention.size: unknown key"),
    ],
)
def test_a_wrong_name_is_refused_where_it_stands(tmp_path: Path, value: Any, says: str) -> None:
    config = run_config(tmp_path, tmp_path / "run", training={"attention": value})
    with pytest.raises(ConfigError, match=says) as error:
        find_backend(config, Origins())
    assert "\n" not in str(error.value)


def test_its_file_stands_beside_the_yaml_that_names_it(tmp_path: Path) -> None:
    written(tmp_path)
    run = tmp_path / "run.yaml"
    run.write_text(
        "output: out\nobjective: arlm\ndata: {corpus: c}\n"
        "model: {num_layers: 1, hidden_size: 8, num_heads: 2, intermediate_size: 8}\n"
        "training: {budget: {amount: 1.0}, attention: {name: dense, file: dense.py}}\n",
        encoding="utf-8",
    )
    config, origins = load_config(RunConfig, run)
    assert find_backend(config, origins).name == "dense"
    again = RunConfig.model_validate(config.model_dump())
    assert again == config


def test_a_name_is_stored_as_it_is_written(tmp_path: Path) -> None:
    config = run_config(tmp_path, tmp_path / "run", training={"attention": "flex"})
    assert config.model_dump()["training"]["attention"] == "flex"
    assert RunConfig.model_validate(config.model_dump()) == config
    assert all(BACKENDS[name].name == name for name in BACKENDS)
