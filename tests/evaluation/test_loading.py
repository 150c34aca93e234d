"""Run folders are opened, or refused in one line."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from megapt.checkpoint.state import checkpoint_path, steps_saved
from megapt.errors import ConfigError, DamagedError, MegaptError
from megapt.evaluation import LoadedRun, load_run
from tests.ranks import run_ranks
from tests.training.runs import run_config, train_with_signal

Overfitted = Callable[[str], LoadedRun]


def refusal(folder: Path, kind: type[MegaptError] = ConfigError) -> str:
    with pytest.raises(kind) as raised:
        load_run(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_run_needs_its_folder_alone(overfitted: Overfitted, tmp_path: Path) -> None:
    run = overfitted("msc")
    shutil.copytree(run.folder, tmp_path / "moved")
    moved = load_run(tmp_path / "moved")
    assert moved.step == run.step
    assert not moved.model.training
    assert moved.objective.heads == run.objective.heads
    assert moved.tokenizer.sha256 == run.tokenizer.sha256


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    assert "no run here" in refusal(tmp_path)
    assert "no run here" in refusal(tmp_path / "none")


def test_a_run_without_a_checkpoint(overfitted: Overfitted, tmp_path: Path) -> None:
    shutil.copytree(overfitted("arlm").folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert "no checkpoint" in refusal(tmp_path / "run")


def test_a_run_that_was_interrupted_can_be_used(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run", objective={"name": "mlm"})
    run_ranks(1, train_with_signal, config, signal.SIGTERM, 2)
    assert load_run(config.output).step == 2


@pytest.mark.parametrize("name", ["tokenizer.model", "corpus.json", "model.safetensors"])
def test_a_run_with_a_damaged_file(overfitted: Overfitted, tmp_path: Path, name: str) -> None:
    shutil.copytree(overfitted("arlm").folder, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    newest = checkpoint_path(checkpoints, steps_saved(checkpoints)[-1])
    file = newest / name if name == "model.safetensors" else tmp_path / "run" / name
    file.write_bytes(file.read_bytes()[:100])
    assert name in refusal(tmp_path / "run", DamagedError)
    file.unlink()
    assert refusal(tmp_path / "run", DamagedError)
