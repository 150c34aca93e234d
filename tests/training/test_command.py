"""The commands as users start them, in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.errors import ConfigError, Exit, RunInterrupted, TrainingError
from megapt.exits import run_and_report
from megapt.training.launch import arguments
from tests.patience import patience
from tests.ranks import free_port
from tests.training.runs import assert_follows, records_of, run_config

ROOT = Path(__file__).resolve().parents[2]


def write_config(config: RunConfig, folder: Path) -> Path:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    return file


def start(*command: object, folder: Path) -> subprocess.Popen[str]:
    """Start a Python program in a session of its own, so that its launcher ends nobody else."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_wrong_input_ends_with_one_line_and_code_2(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run")
    file = write_config(config, tmp_path)
    wrong = start("-m", "megapt.training", file, "training.global_batch_size=7", folder=tmp_path)
    output, errors = wrong.communicate(timeout=60)
    assert wrong.returncode == 2
    assert output == ""
    [line] = errors.splitlines()
    assert line.startswith("megapt: error: command line: training.global_batch_size: 7 windows")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_command_says_that_it_goes_on(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run", training={"budget": {"amount": 1e9}})
    file = write_config(config, tmp_path)
    running = start("-m", "megapt.training", "--local_rank=0", file, folder=tmp_path)
    metrics = RunFolder(config.output).metrics_file
    end = time.monotonic() + 60
    while not records_of(config) and running.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(
        f"megapt: interrupted: {config.output}: stopped after"
    )
    assert metrics.is_file()
    assert list(RunFolder(config.output).checkpoints.glob("step-*"))


def test_the_launcher_of_deepspeed_trains_on_two_ranks(
    trained: Callable[..., RunConfig], corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(corpus_folder, tmp_path / "run", parallel={"zero_stage": 1})
    file = write_config(config, tmp_path)
    launcher = Path(sys.executable).with_name("deepspeed")
    port = f"--master_port={free_port()}"
    words = ("--num_gpus=2", port, "--module", "megapt.training", file, "seed=3")
    running = start(launcher, *words, folder=tmp_path)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert f"{config.output}: " in output
    assert "validation loss" in output
    assert_follows(records_of(config), records_of(trained("arlm")))


def test_a_port_that_is_taken_ends_the_job_in_one_line(tmp_path: Path) -> None:
    launcher = Path(sys.executable).with_name("deepspeed")
    lines: list[str] = []
    told = 0.0
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        words = ("--num_gpus=2", f"--master_port={port}", "--module", "megapt.training")
        running = start(launcher, *words, "run.yaml", folder=tmp_path)
        assert running.stderr is not None
        for line in running.stderr:
            lines.append(line.rstrip())
            told = told or time.monotonic() * line.startswith("megapt: ")
        running.communicate(timeout=60)
    # The launcher gives a rank 30 seconds to hear its SIGTERM.
    assert time.monotonic() - told < patience(15)
    assert running.returncode == Exit.RESTART, lines
    assert lines == [
        f"megapt: error: 127.0.0.1:{port}: the port on which the ranks connect is used by another "
        f"process; give the launcher another --master_port"
    ]


def test_the_words_of_a_launcher() -> None:
    words = ["--local_rank=1", "run.yaml", "seed=3", "objective=mlm"]
    assert arguments(words) == ("run.yaml", ["seed=3", "objective=mlm"])
    with pytest.raises(ConfigError, match="config file"):
        arguments(["--local_rank=0"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("x.yaml: wrong"), 2, "megapt: error: x.yaml: wrong"),
        (TrainingError("step 3: loss nan"), 1, "megapt: training failed: step 3: loss nan"),
        (
            OSError(28, "No space left on device", "runs/a"),
            1,
            "megapt: error: runs/a: No space left on device",
        ),
        (OSError(28, "No space left on device"), 1, "megapt: error: No space left on device"),
        (OSError("no such thing"), 1, "megapt: error: no such thing"),
        (
            RunInterrupted("runs/a: stopped after step 3"),
            130,
            "megapt: interrupted: runs/a: stopped after step 3; the same command resumes from "
            "there",
        ),
        (KeyboardInterrupt(), 130, "megapt: interrupted"),
    ],
)
def test_every_end_has_its_line_and_its_code(
    capfd: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def job() -> None:
        raise error

    assert run_and_report(job) == code
    assert capfd.readouterr().err == f"{line}\n"


def test_only_the_first_rank_speaks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")

    def job() -> None:
        raise ConfigError("wrong")

    assert run_and_report(job) == 2
    assert capfd.readouterr().err == ""
