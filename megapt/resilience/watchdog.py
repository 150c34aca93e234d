"""Notices a rank that hangs or is gone, and ends the job rather than leaving it burning."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path

import torch

import megapt
from megapt.config import FaultsConfig
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import limit_waits
from megapt.errors import (
    ConfigError,
    Exit,
    MegaptError,
    RanksLost,
)
from megapt.resilience.heartbeats import (
    ALIVE,
    FAILED,
    HUNG,
    KILLED,
    LEFT,
    Heartbeat,
    heartbeat_file,
    read_heartbeat,
    read_heartbeats,
    settling,
    write_heartbeat,
)
from megapt.resilience.rank_monitor import BEAT_SIZE, STACK_SIGNAL, Beat

_DEAF = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGQUIT,
}
"""Signals that may reach all processes of a job, and end none of the wardens."""
# Without site-packages, which would cost it time and memory.
_WARDEN = f"import sys; sys.path.append({str(Path(megapt.__file__).parents[1])!r})\n" + (
    "from megapt.resilience.rank_monitor import main; main()"
)
_HOW = {KILLED: "was killed", FAILED: "has failed", HUNG: "hung"}
_MOST = 8
"""Ranks that one line names."""
_LOOK = 0.1
_MARGIN = 60.0
"""Seconds by which wardens are before the limit of the process groups."""


class Watchdog:
    """Tells this rank's monitor what the rank does, so that it notices when nothing comes any more.

    All ranks beat at the same places: who has beaten less often than the others is behind.

    Args:
        folder: of the run; heartbeats and stacks are in its `ranks`.
        ranks: of the job.
        config: how long a rank may stand still.
    """

    def __init__(self, folder: Path, ranks: Ranks, config: FaultsConfig) -> None:
        self._folder = folder / "ranks"
        self._ranks = ranks
        self._config = config
        self._shared: bytearray | mmap = bytearray(BEAT_SIZE)
        self._warden: subprocess.Popen[bytes] | None = None
        self._stacks = -1
        self._beats = self._step = 0
        self._doing = "start"
        self._limit = config.timeout

    def beat(self, step: int, doing: str) -> None:
        """Tell that this rank goes on; it takes about a microsecond.

        Args:
            step: that it works on, from 1.
            doing: what it begins with, a word.
        """
        self._step, self._doing = step, doing
        self._beats += 1
        self._shared[:] = Beat(self._beats, step, self._limit, doing).pack()

    @contextmanager
    def slowly(self, doing: str) -> Iterator[None]:
        """Let what is done inside take `faults.start_timeout` from one beat to the next."""
        before, self._limit = (self._doing, self._limit), self._config.start_timeout
        self.beat(self._step, doing)
        try:
            yield
        finally:
            doing, self._limit = before
            self.beat(self._step, doing)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch over what is done inside.

        Raises:
            RanksLost: other ranks are gone, which is why a RuntimeError was raised inside.
        """
        self.start()
        left = FAILED
        try:
            yield
            left = ""
        except MegaptError:  # all ranks raise it together
            left = ""
            raise
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # It may be that of a collective whose other end is gone: gloo's and NCCL's.
            if lost := self._lost():
                left = LEFT
                raise lost from error
            raise
        finally:
            self.stop(left)

    def start(self) -> None:
        """Begin to watch; all ranks call it together.

        Raises:
            ConfigError: on every rank, if another job trains in the folder.
        """
        with self._ranks.together():
            if self._ranks.main:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._refuse_company()
                for file in self._folder.glob("rank-*.json"):
                    file.unlink()
        # The second line of defence, should a rank monitor have died: without names, but in time.
        limit_waits(max(self._config.timeout, self._config.start_timeout) + _MARGIN)
        beats, self._stacks = os.memfd_create("beats"), os.memfd_create("stacks")
        os.ftruncate(beats, BEAT_SIZE)
        self._shared = mmap(beats, BEAT_SIZE)
        self.beat(self._step, self._doing)
        # By number, and into memory: it is written within a signal, when the disk may hang.
        faulthandler.register(STACK_SIGNAL, file=self._stacks, all_threads=True)
        heartbeat = Heartbeat(self._ranks.rank, socket.gethostname(), os.getpid())
        write_heartbeat(self._folder, heartbeat)
        task = {
            "folder": str(self._folder.resolve()),
            "rank": heartbeat.rank,
            "host": heartbeat.host,
            "pid": heartbeat.pid,  # It may be gone before the monitor could ask for its parent.
            "world": self._ranks.world,
            "timeout": self._config.timeout,
            "beats": beats,
            "stacks": self._stacks,
        }
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF)  # It keeps this for life.
        try:
            self._warden = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WARDEN, json.dumps(task)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(beats, self._stacks),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(beats)
        threading.Thread(target=self._end_when_told, args=(self._warden,), daemon=True).start()
        self._ranks.barrier()  # From here on no heartbeat is of an earlier start.

    def stop(self, state: str = "") -> None:
        """End the watch.

        Args:
            state: of this rank, which its heartbeat keeps for the others; by default nothing is
                left of it.
        """
        if self._warden is None:
            return
        process, self._warden = self._warden, None
        mine = read_heartbeat(self._folder, self._ranks.rank)
        if mine is not None and mine.state == HUNG:
            process.wait()  # It reports, and then ends this process.
        process.kill()
        process.wait()
        faulthandler.unregister(STACK_SIGNAL)
        os.close(self._stacks)
        rank = self._ranks.rank
        with suppress(OSError):  # This is the way out; what went wrong before is told.
            if state:
                heartbeat = Heartbeat(rank, socket.gethostname(), os.getpid(), state, self._step)
                write_heartbeat(self._folder, heartbeat)
            else:
                heartbeat_file(self._folder, rank).unlink()
                self._folder.rmdir()  # By the last rank, if no stacks are there.

    def _end_when_told(self, process: subprocess.Popen[bytes]) -> None:
        """End this process when the rank monitor says so, since the main thread cannot."""
        assert process.stdout is not None
        with process.stdout as told:
            word = told.read(1)
        if word:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(Exit.LOST_PROCESS)
        if self._warden is process:
            print(
                f"megapt: warning: nothing watches over rank {self._ranks.rank} any more: its "
                f"rank monitor has died",
                file=sys.stderr,
                flush=True,
            )

    def _refuse_company(self) -> None:
        """Refuse to train where the wardens of another job are alive."""
        other = read_heartbeat(self._folder, 0)
        if other is None or other.state != ALIVE:
            return
        end = time.monotonic() + settling(16.0)
        while time.monotonic() < end:
            time.sleep(_LOOK)
            now = read_heartbeat(self._folder, 0)
            if now is None or now.state != ALIVE:
                return
            if now.pulse != other.pulse:
                raise ConfigError(
                    f"{self._folder.parent}: another job trains here: {other.says()}; end it first"
                )

    def _lost(self) -> RanksLost | None:
        """Find out which ranks are gone, if any: their wardens tell, or their hosts are silent."""
        mine, world = self._ranks.rank, self._ranks.world
        first = heartbeats = read_heartbeats(self._folder, world)
        end = time.monotonic() + settling(self._config.timeout)
        lost: dict[int, str] = {}
        while not lost and time.monotonic() < end:
            time.sleep(_LOOK)
            heartbeats = read_heartbeats(self._folder, world)
            lost = {
                r: _HOW[h.state] for r, h in heartbeats.items() if h.state in _HOW and r != mine
            }
        if not lost:
            still = [r for r, h in heartbeats.items() if r in first and h.pulse == first[r].pulse]
            lost = {
                r: "does not answer, nor does its host,"
                for r in still
                if heartbeats[r].state == ALIVE
            }
        if not lost:
            return None
        told = {heartbeats[rank].state for rank in lost} & {FAILED, HUNG}
        if told:
            return RanksLost("", Exit.FAILED if told == {FAILED} else Exit.LOST_PROCESS)
        if min(rank for rank in range(world) if rank not in lost) < mine:
            return RanksLost("")
        lines = [
            f"{heartbeats[r].says()} {how} in {heartbeats[r].place()}" for r, how in lost.items()
        ]
        more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        return RanksLost("; ".join(lines[:_MOST] + more))
