"""Real gloo ranks in processes of their own, each in a tenth of a second.

A rank that starts from nothing costs five seconds, nearly all of them imports. Here a server that
has imported everything forks them (`tests.warm`). The server is not the pytest process itself,
because torch does not back-propagate in the child of a process that has done so.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import secrets
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from megapt.distributed.ranks import Ranks
from tests.patience import patience

_ROOT = Path(__file__).resolve().parents[1]
_GRACE = 1.0
"""Seconds that the other ranks get to report once one has failed."""


@dataclass
class Outcome:
    """How one rank ended."""

    value: Any = None
    """What the function returned."""
    failure: str = ""
    """Traceback, or how the process died; empty if the function returned."""
    killed: bool = False
    """Whether it died of a SIGKILL that did not come from here."""


@cache
def _server() -> ForkServerContext:
    """Start the process that forks the ranks; it ends with pytest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm"])
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), before.get("PYTHONPATH", "")])
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def free_port() -> int:
    """A port below those that the system gives to outgoing connections, so that none takes it."""
    while True:
        port = secrets.choice(range(20000, 30000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _be_rank(
    answer: connection.Connection,
    log: str,
    environment: dict[str, str],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    os.setsid()  # A signal to the group of a rank reaches its loader workers and nobody else.
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    # A process of a fork server would start its own children by it too; what users start does not.
    multiprocessing.set_start_method("fork", force=True)
    try:
        import torch
        from torch.distributed import distributed_c10d

        from megapt.distributed.start import start_ranks

        torch.set_num_threads(1)
        distributed_c10d.default_pg_timeout = timedelta(seconds=patience(60))
        outcome = Outcome(function(start_ranks(), *args))
        if torch.distributed.is_initialized():  # a command has ended its group itself
            torch.distributed.destroy_process_group()
    except BaseException:
        outcome = Outcome(failure=traceback.format_exc())
    answer.send(outcome)


def _collect(
    processes: list[Any], answers: list[connection.Connection], timeout: float
) -> list[Outcome]:
    """Wait for all ranks; kill those that still run a moment after another has failed."""
    outcomes: dict[int, Outcome] = {}
    end = time.monotonic() + timeout
    while len(outcomes) < len(processes) and time.monotonic() < end:
        open_ranks = [rank for rank in range(len(processes)) if rank not in outcomes]
        connection.wait([answers[rank] for rank in open_ranks], end - time.monotonic())
        for rank in open_ranks:
            if not answers[rank].poll():
                continue
            try:
                outcomes[rank] = answers[rank].recv()
            except EOFError:
                processes[rank].join()
                code = processes[rank].exitcode
                died = f"rank {rank} died with exit code {code}"
                outcomes[rank] = Outcome(failure=died, killed=code == -signal.SIGKILL)
            if outcomes[rank].failure:
                end = min(end, time.monotonic() + patience(_GRACE))
    for rank, process in enumerate(processes):
        if rank not in outcomes:
            process.kill()
            outcomes[rank] = Outcome(failure=f"rank {rank} still ran and was ended")
        process.join()
        process.close()
    return [outcomes[rank] for rank in range(len(processes))]


@contextmanager
def _in_turn(world: int) -> Iterator[None]:
    """Let one job of several ranks run at a time, whichever of pytest's processes asks for it.

    Ranks that wait for each other stand still as soon as there are more of them than processors.
    """
    with open(Path(tempfile.gettempdir()) / f"megapt-ranks-{os.getuid()}", "w") as file:
        if world > 1:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def end_ranks(
    world: int, function: Callable[..., Any], *args: Any, timeout: float = 120.0
) -> tuple[list[Outcome], str]:
    """Run `function(ranks, *args)` on `world` ranks; return how each ended, and what they printed.

    The function and its arguments are pickled: it stands at the top of a module.
    """
    context = _server()
    port = str(free_port())
    processes, answers = [], []
    with tempfile.TemporaryDirectory() as folder, _in_turn(world):
        logs = [Path(folder) / str(rank) for rank in range(world)]
        for rank, log in enumerate(logs):
            log.touch()
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            answer, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_be_rank, args=(theirs, str(log), environment, function, args)
            )
            process.start()
            theirs.close()
            processes.append(process)
            answers.append(answer)
        outcomes = _collect(processes, answers, patience(timeout))
        printed = "".join(log.read_text(errors="replace") for log in logs)
    return outcomes, printed


def run_ranks(
    world: int, function: Callable[..., Any], *args: Any, timeout: float = 120.0
) -> list[Any]:
    """Run `function(ranks, *args)` on `world` ranks and return the result of each."""
    outcomes, printed = end_ranks(world, function, *args, timeout=timeout)
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    assert not failures, "\n".join([*failures, printed])
    return [outcome.value for outcome in outcomes]


def rank_of(ranks: Ranks) -> int:
    """Tell which rank this is: the smallest function for `run_ranks`."""
    return ranks.rank
