"""Whole jobs, under DeepSpeed's launcher, of which a process is stopped or killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import yaml

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.errors import Exit
from megapt.resilience import heartbeats
from megapt.resilience.heartbeats import ALIVE, Heartbeat
from tests.patience import patience
from tests.ranks import free_port
from tests.training.runs import records_of, run_config

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT, LONG = 4.0, 20.0
"""Of a step; and of a checkpoint, in whose midst a rank may be stopped."""


@pytest.fixture
def config(corpus_folder: Path, tmp_path: Path) -> RunConfig:
    """A run without an end, of which a step is saved now and then."""
    return run_config(
        corpus_folder,
        tmp_path / "run",
        training={"budget": {"amount": 1e9}, "validate_every": 0},
        checkpoint={"every": 5},
        faults={"timeout": TIMEOUT, "slow_phase_timeout": LONG},
    )


def beats_of(config: RunConfig) -> list[Heartbeat]:
    return list(heartbeats.read_heartbeats(Path(config.output) / "ranks", 2).values())


@contextmanager
def job(config: RunConfig) -> Iterator[Popen[str]]:
    """Start a job on two ranks and let it train a little; nothing of it is left at the end."""
    file = Path(config.output).with_name("run.yaml")
    file.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    port = f"--master_port={free_port()}"
    command = [launcher, "--num_gpus=2", port, "--module", "megapt.training", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = Popen(
        command, env=environment, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True
    )
    try:
        end = time.monotonic() + patience(90)
        while len(records_of(config)) < 6 and started.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert len(beats_of(config)) == 2, started.communicate(timeout=patience(10))
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def told(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("megapt: error")]


def test_a_rank_that_is_stopped_ends_the_job_in_time(config: RunConfig) -> None:
    with job(config) as running:
        rank = beats_of(config)[1].pid
        began = time.monotonic()
        os.kill(rank, signal.SIGSTOP)
        _, errors = running.communicate(timeout=patience(60))
        assert time.monotonic() - began < patience(LONG + 10)
    assert running.returncode == Exit.LOST_PROCESS, errors
    [line] = told(errors)
    assert line.startswith("megapt: error: rank 1 on host ")
    assert f"(pid {rank}) has made no progress since step " in line
    assert "process stopped; stacks in " in line
    for number in range(2):
        stacks = heartbeats.stacks_file(Path(config.output) / "ranks", number).read_text()
        assert "in train" in stacks
    assert list(RunFolder(config.output).checkpoints.glob("step-*"))


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job_at_once(config: RunConfig) -> None:
    with job(config) as running:
        rank = beats_of(config)[1].pid
        began = time.monotonic()
        os.kill(rank, signal.SIGKILL)
        _, errors = running.communicate(timeout=patience(60))
        assert time.monotonic() - began < patience(10)
    assert running.returncode in (Exit.LOST_PROCESS, 256 - signal.SIGKILL), errors
    [line] = told(errors)
    assert line.startswith("megapt: error: rank 1 on host ")
    assert f"(pid {rank}) was killed in step " in line
    assert "Traceback" not in errors


@pytest.mark.slow
def test_ranks_whose_launcher_is_killed_save_and_end(config: RunConfig) -> None:
    with job(config) as running:
        parents = {
            int(Path(f"/proc/{heartbeat.pid}/stat").read_text().rpartition(")")[2].split()[1])
            for heartbeat in beats_of(config)
        }
        [launcher] = parents
        os.kill(launcher, signal.SIGKILL)
        _, errors = running.communicate(timeout=patience(60))
    assert len(told(errors)) == 2
    assert "its launcher has died" in errors
    assert "interrupted: " in errors
    assert not [heartbeat for heartbeat in beats_of(config) if heartbeat.state == ALIVE]
