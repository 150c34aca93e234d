"""An optimizer of the user's own, from one file: trained, resumed, planned, and refused."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from megapt.config import Origins, RunConfig, load_config
from megapt.errors import ConfigError
from megapt.optim import OPTIMIZERS, find_optimizer
from tests.ranks import run_ranks
from tests.training.runs import (
    assert_follows,
    records_of,
    run_config,
    train,
    train_to_refusal,
    train_with_signal,
)

SGD = """
import torch

from megapt.config import Section
from megapt.optim import OptimizerFactory


class Settings(Section):
    dampening: float = 0.0


class Sgd(OptimizerFactory):
    name = "sgd"
    Config = Settings
    state_bytes = 4
    {more}

    def build(self, groups, ranks, *, offloaded):
        settings = self.settings
        return torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, dampening=self.own.dampening
        )
"""


def written(folder: Path, more: str = "pass") -> Path:
    file = folder / "sgd.py"
    file.write_text(SGD.format(more=more), encoding="utf-8")
    return file


def configured(corpus: Path, output: Path, file: Path, stage: int = 1, **own: Any) -> RunConfig:
    optimizer = {"name": "sgd", "file": str(file), **own}
    return run_config(corpus, output, optimizer=optimizer, parallel={"zero_stage": stage})


@pytest.mark.parametrize(
    ("before", "after"), [((2, 1), (2, 1)), ((2, 1), (1, 3)), ((1, 0), (2, 2))]
)
def test_a_run_with_it_goes_on_as_if_nothing_had_changed(
    corpus_folder: Path, tmp_path: Path, before: tuple[int, int], after: tuple[int, int]
) -> None:
    file = written(tmp_path)
    whole, broken = (
        configured(corpus_folder, tmp_path / name, file, before[1], dampening=0.1)
        for name in ("whole", "broken")
    )
    run_ranks(before[0], train, whole)
    assert run_ranks(before[0], train_with_signal, broken, signal.SIGTERM, 3) == [None] * before[0]
    assert (tmp_path / "broken/optimizer.py").read_bytes() == file.read_bytes()
    again = configured(corpus_folder, tmp_path / "broken", file, after[1], dampening=0.1)
    run_ranks(after[0], train, again)
    assert_follows(records_of(broken), records_of(whole), 1e-5)


def test_a_run_is_not_resumed_with_a_file_that_differs(corpus_folder: Path, tmp_path: Path) -> None:
    file = written(tmp_path)
    config = configured(corpus_folder, tmp_path / "run", file)
    run_ranks(1, train_with_signal, config, signal.SIGTERM, 3)
    written(tmp_path, "zero_stages = (0, 1)")
    [text] = run_ranks(1, train_to_refusal, config)
    assert text.startswith("ConfigError")
    assert "optimizer.file was as in" in text


@pytest.mark.parametrize(
    ("more", "stage", "says"),
    [
        ("zero_stages = (0, 1)", 2, "'sgd' runs at parallel.zero_stage 0, 1 and "),
        ("precisions = ('bf16',)", 1, "'sgd' runs at .* and training.precision bf16"),
        ("problem = lambda self, config, stage: 'needs luck'", 1, "'sgd' needs luck"),
    ],
)
def test_it_is_refused_where_it_says_that_it_cannot_run(
    corpus_folder: Path, tmp_path: Path, more: str, stage: int, says: str
) -> None:
    file = written(tmp_path, more)
    config = configured(corpus_folder, tmp_path / "run", file, stage)
    [text] = run_ranks(1, train_to_refusal, config)
    assert text.startswith("ConfigError: optimizer.name: ")
    assert re.search(says, text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"name": "adamv"}, "optimizer.name: no optimizer named 'adamv'; did you mean 'adamw'"),
        ({"name": "xyz"}, "valid: adafactor, adamw, lion, muon"),
        ({"weight_decoy": 0.1}, "optimizer.weight_decoy: unknown key; did you mean 'weight_decay'"),
        ({"name": "sgd", "file": "none.py"}, "optimizer.file: .*none.py: no such Python file"),
        ({"name": "sgd", "file": "sgd.py", "dampning": 1.0}, "did you mean 'dampening'"),
        ({"name": "sgd", "file": "sgd.py", "dampening": "no"}, "optimizer.dampening: .*number"),
    ],
)
def test_a_wrong_section_is_refused_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], says: str
) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = run_config(tmp_path, tmp_path / "run", optimizer=section)
    with pytest.raises(ConfigError, match=says) as error:
        find_optimizer(config, Origins())
    assert "\n" not in str(error.value)


def test_its_file_stands_beside_the_preset_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    written(tmp_path / "optimizer")
    preset = "name: sgd\nfile: sgd.py\ndampening: 0.2\n"
    (tmp_path / "optimizer/sgd.yaml").write_text(preset, encoding="utf-8")
    run = tmp_path / "run.yaml"
    run.write_text(
        "output: out\nobjective: arlm\ndata: {corpus: c}\noptimizer: sgd\n"
        "model: {num_layers: 1, hidden_size: 8, num_heads: 2, intermediate_size: 8}\n"
        "training: {budget: {amount: 1.0}}\n",
        encoding="utf-8",
    )
    config, origins = load_config(RunConfig, run)
    assert find_optimizer(config, origins).own.dampening == 0.2


def test_every_optimizer_says_what_it_keeps() -> None:
    assert sorted(OPTIMIZERS) == ["adafactor", "adamw", "lion", "muon"]
    assert all(kind.state_bytes % 4 == 0 for kind in OPTIMIZERS.values())
