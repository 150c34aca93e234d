"""The command, and runs and configurations for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from megapt.training import launch
from megapt.training.trainer import Trainer
from tests.cli.answers import TRAINED, Answer, Megapt, call_main, train_all, write_yaml
from tests.ranks import run_ranks
from tests.training.runs import ALONE, run_config


@pytest.fixture
def megapt(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Megapt:
    """Run a command in this process, as the only rank and without a process group."""
    monkeypatch.setattr(launch, "start_ranks", lambda: ALONE)
    # Training belongs to a rank: see `trained_by`.
    monkeypatch.setattr(Trainer, "train", lambda _: pytest.fail("began to train"))

    def run(*words: object) -> Answer:
        capfd.readouterr()
        code = call_main(words)
        output, errors = capfd.readouterr()
        assert "Traceback" not in errors
        return Answer(code, output, errors)

    return run


@pytest.fixture(scope="session")
def runs(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run of every objective, named after it."""
    folder = tmp_path_factory.mktemp("runs")
    configs = [
        run_config(
            corpus_folder,
            folder / name,
            data={"window": 64},
            objective={"name": name},
            training={"budget": {"amount": 1000.0}, "validate_every": 0},
        )
        for name in TRAINED
    ]
    run_ranks(1, train_all, configs)
    return folder


@pytest.fixture
def config_file(corpus_folder: Path, tmp_path: Path) -> Path:
    """A run of `arlm` that has not begun; its folder is `run` beside this file."""
    config = run_config(corpus_folder, tmp_path / "run", data={"window": 64})
    return write_yaml(tmp_path / "run.yaml", config.model_dump())


@pytest.fixture
def compare_file(corpus_folder: Path, tmp_path: Path) -> Path:
    """A comparison of two objectives that has not begun; its folder is `out` beside this file."""
    run = run_config(
        corpus_folder, tmp_path / "out", data={"window": 64}, training={"budget": {"amount": 800.0}}
    )
    values = {
        **run.model_dump(exclude={"objective", "branch"}),
        "members": {"arlm": "arlm", "mlm": "mlm"},
        "measures": [
            {"name": "probe", "train_documents": 40, "validation_documents": 20},
            {"name": "repetition", "num_samples": 1, "max_new_tokens": 4},
        ],
        "validation_windows": 8,
        "num_samples": 1,
        "max_new_tokens": 4,
    }
    return write_yaml(tmp_path / "compare.yaml", values)
