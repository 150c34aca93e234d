"""A run that waits for data stops at once when it is asked to, and ends if the data cannot come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Timer

import pytest
import yaml

from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import steps_saved
from megapt.config import Origins, RunConfig
from megapt.data import PackedBatch
from megapt.distributed.ranks import Ranks
from megapt.errors import Exit, RunInterrupted
from megapt.exits import run_and_report
from megapt.monitoring.metrics import without_clock
from megapt.resilience.stopping import StopRequested, StopRequests
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer
from tests.data.reading.server import Fault, serve
from tests.patience import patience
from tests.ranks import end_ranks, run_ranks
from tests.training.damage import late_shard, run_in_turn
from tests.training.runs import records_of, run_config, train, within_step

ROOT = Path(__file__).resolve().parents[2]
STEP, STALL = 4, 600.0


def stall_in(trainer: Trainer, step: int, stalls: bool, asked: bool) -> None:
    """Let the data of update `step` not come; if `asked`, the rank gets a SIGTERM meanwhile."""
    batch, rank = trainer.prepared.maker.batch, os.getpid()
    first = (step - 1) * trainer.config.training.global_batch_size

    def watched(numbers: Sequence[int]) -> PackedBatch:
        if first <= min(numbers) < first + trainer.config.training.global_batch_size:
            if asked:
                Timer(1.0, os.kill, (rank, signal.SIGTERM)).start()
            if stalls:
                time.sleep(STALL)
        return batch(numbers)

    trainer.prepared.maker.batch = watched  # type: ignore[method-assign]


def train_into_a_stall(ranks: Ranks, config: RunConfig, asked: Sequence[int]) -> str:
    """Train; the last rank's data does not come, and the ranks in `asked` are asked to stop."""
    trainer = Trainer(prepare(config, ranks, Origins()))
    stall_in(trainer, STEP, ranks.rank == ranks.world - 1, ranks.rank in asked)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)]
    with pytest.raises(RunInterrupted) as interrupted:
        trainer.train()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)]
    return str(interrupted.value)


@pytest.mark.parametrize(
    ("world", "workers", "asked"),
    [(1, 0, [0]), (1, 2, [0]), (2, 0, [1]), (2, 1, [1]), (2, 0, [0, 1])],
)
def test_a_request_to_stop_ends_the_wait_for_data_on_all_ranks(
    corpus_folder: Path, tmp_path: Path, world: int, workers: int, asked: list[int]
) -> None:
    whole = run_config(corpus_folder, tmp_path / "whole")
    run_ranks(world, train, whole)
    config = run_config(corpus_folder, tmp_path / "run", data={"num_workers": workers})
    began = time.monotonic()
    said = run_ranks(world, train_into_a_stall, config, asked)
    assert time.monotonic() - began < patience(15)
    assert said == [f"{config.output}: stopped after step {STEP - 1}"] * world
    assert steps_saved(RunFolder(config.output).checkpoints) == [STEP - 1]
    run_ranks(world, train, config)
    assert without_clock(records_of(config)) == without_clock(records_of(whole))
    summaries = [RunFolder(of.output).summary()["data"] for of in (config, whole)]
    assert summaries[0] == summaries[1]


def train_from_a_server_that_stalls(ranks: Ranks, config: RunConfig) -> str:
    """Train until the run is interrupted; SIGINT comes two seconds after the first step."""
    trainer = Trainer(prepare(config, ranks, Origins()))
    within_step(trainer, 1, lambda: Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start())
    with pytest.raises(RunInterrupted) as interrupted:
        trainer.train()
    return str(interrupted.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_stalls_does_not_keep_a_run_from_stopping(
    corpus_folder: Path, tmp_path: Path, workers: int
) -> None:
    """Nothing that was on its way is in the way of the run that goes on."""
    shard, step = late_shard(corpus_folder)
    with serve(corpus_folder) as server:
        server.always[shard.name] = Fault("stall", 100)
        data = {"corpus": server.url, "num_workers": workers}
        data["reading"] = {"cache_dir": str(tmp_path / "cache")}
        config = run_in_turn(corpus_folder, tmp_path / "run", data=data)
        began = time.monotonic()
        [said] = run_ranks(1, train_from_a_server_that_stalls, config)
        assert said == f"{config.output}: stopped after step {step - 1}"
        server.always.clear()
        run_ranks(1, train, config)
        assert time.monotonic() - began < patience(20)


def train_with_a_death(ranks: Ranks, config: RunConfig) -> int:
    """Train as the command does; a loader process of the last rank is killed in update STEP."""

    def kill() -> None:
        child = multiprocessing.active_children()[0]
        child.kill()
        child.join()

    def job() -> None:
        trainer = Trainer(prepare(config, ranks, Origins()))
        if ranks.rank == ranks.world - 1:
            within_step(trainer, STEP, kill)
        trainer.train()

    return run_and_report(job)


@pytest.mark.parametrize("world", [1, 2])
def test_the_death_of_a_loader_process_ends_all_ranks_in_one_line(
    corpus_folder: Path, tmp_path: Path, world: int
) -> None:
    """It is told when data is waited for, not within an update: that one is finished and saved."""
    config = run_config(corpus_folder, tmp_path / "run", data={"num_workers": 2})
    outcomes, printed = end_ranks(world, train_with_a_death, config)
    assert [(outcome.value, outcome.failure) for outcome in outcomes] == [
        (Exit.LOST_PROCESS, "")
    ] * world
    [line] = [line for line in printed.splitlines() if not line.startswith("run: ")]
    assert line == (
        "megapt: error: a loader process has died (killed by signal 9); out of memory? lower "
        "data.num_workers or data.shuffle_buffer_blocks"
    )
    assert steps_saved(RunFolder(config.output).checkpoints) == [STEP]
    whole = run_config(corpus_folder, tmp_path / "whole")
    for each in (config, whole):
        run_ranks(world, train, each)
    assert without_clock(records_of(config)) == without_clock(records_of(whole))


def test_a_request_is_remembered_and_ends_the_next_wait() -> None:
    stops = StopRequests()
    before = signal.getsignal(signal.SIGTERM)
    with stops.handling():
        with stops.waiting():
            assert not stops.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.received
        with pytest.raises(StopRequested), stops.waiting():
            pytest.fail("it waits all the same")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_request_does_not_disturb_what_is_put_away() -> None:
    put_away = []

    def wait() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(STALL)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            put_away.append("a lock")

    stops = StopRequests()
    with stops.handling(), pytest.raises(StopRequested), stops.waiting():
        wait()
    assert put_away


def train_and_be_asked(ranks: Ranks, config: RunConfig, numbers: Sequence[signal.Signals]) -> int:
    """Train as the command does; in update STEP each rank gets a signal of its own."""
    number = numbers[ranks.rank]

    def job() -> None:
        trainer = Trainer(prepare(config, ranks, Origins()))
        within_step(trainer, STEP, lambda: os.kill(os.getpid(), number))
        trainer.train()

    return run_and_report(job)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGUSR1], Exit.RESTART),
        ([signal.SIGTERM, signal.SIGUSR1], Exit.RESTART),
        ([signal.SIGTERM, signal.SIGINT], Exit.INTERRUPTED),
    ],
)
def test_the_code_says_whether_to_start_the_job_again(
    corpus_folder: Path, tmp_path: Path, numbers: list[signal.Signals], code: Exit
) -> None:
    """Ctrl-C is stronger than what a batch system sends, on whichever rank it arrives."""
    config = run_config(corpus_folder, tmp_path / "run")
    world = len(numbers)
    assert run_ranks(world, train_and_be_asked, config, numbers) == [code] * world
    assert steps_saved(RunFolder(config.output).checkpoints) == [STEP]


def train_into_silence(ranks: Ranks, config: RunConfig) -> int:
    """Train as the command does; the data of the last rank does not come in update STEP."""

    def job() -> None:
        trainer = Trainer(prepare(config, ranks, Origins()))
        stall_in(trainer, STEP, ranks.rank == ranks.world - 1, asked=False)
        trainer.train()

    return run_and_report(job)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_does_not_come_ends_the_job_with_the_stack_of_who_waits(
    corpus_folder: Path, tmp_path: Path, workers: int
) -> None:
    config = run_config(
        corpus_folder, tmp_path / "run", data={"num_workers": workers}, faults={"timeout": 2.0}
    )
    _, printed = end_ranks(2, train_into_silence, config)
    lines = [line for line in printed.splitlines() if line.startswith("megapt: error")]
    assert lines[-1].startswith("megapt: error: rank 1 on host ")
    assert f"has made no progress since step {STEP} (data) for" in lines[-1]
    # Be it the rank itself or its loader process.
    assert "in watched" in (tmp_path / "run" / "ranks" / "stacks-rank-00001.txt").read_text()


def wait_until_heard(process: Popen[str], number: signal.Signals) -> None:
    """Wait until a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        [caught] = [line for line in status.read_text().splitlines() if line.startswith("SigCgt")]
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.001)


def test_a_request_is_heard_before_torch_is_imported(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "megapt.training", str(file)]
    with Popen(command, env=environment, stderr=PIPE, text=True) as process:
        wait_until_heard(process, signal.SIGUSR1)
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=patience(60))
    assert "libtorch" not in loaded
    assert process.returncode == Exit.RESTART, errors
    assert "stopped after step 0" in errors
    run_ranks(1, train, config)


@pytest.mark.parametrize("late", [False, True])
def test_a_rank_that_does_not_meet_the_others_ends_when_it_is_asked(late: bool) -> None:
    """Where the first rank should be, somebody listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(patience(60))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RANK": "1",
            "LOCAL_RANK": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(other.getsockname()[1]),
        }
        command = [sys.executable, "-m", "megapt.training", "run.yaml"]
        with Popen(command, env=environment, stderr=PIPE, text=True) as process:
            if late:
                connection, _ = other.accept()
            else:
                wait_until_heard(process, signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=patience(60))
            if late:
                connection.close()
    assert process.returncode == Exit.RESTART, errors
    assert errors == ""
