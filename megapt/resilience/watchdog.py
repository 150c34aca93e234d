"""Notices ranks that hang or are gone, and ends the job, so that it does not waste its GPUs."""

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
from megapt.distributed.start import set_timeout
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
    pulse_wait,
    read_heartbeat,
    read_heartbeats,
    write_heartbeat,
)
from megapt.resilience.rank_monitor import BEAT_SIZE, STACK_SIGNAL, Beat

_BLOCKED_SIGNALS = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGQUIT,
}
"""Signals that may reach all processes of a job. They must not end the rank monitors."""
# Without site-packages, which would take time and memory.
_MONITOR_CODE = f"import sys; sys.path.append({str(Path(megapt.__file__).parents[1])!r})\n" + (
    "from megapt.resilience.rank_monitor import main; main()"
)
_LOST = {KILLED: "was killed", FAILED: "has failed", HUNG: "hung"}
"""What a message says of a lost rank, by its state."""
_MAX_NAMED = 8
"""Most ranks that one line names."""
_POLL = 0.1
"""Seconds between two reads of heartbeats."""
_MARGIN = 60.0
"""Seconds that the process groups wait longer than the rank monitors."""


class Watchdog:
    """Reports this rank's progress to its monitor, which notices when no progress is reported.

    All ranks beat at the same places, so a rank with fewer beats than the others is behind.

    Args:
        folder: folder of the run; heartbeats and stacks are in its `ranks`.
        ranks: ranks of the job.
        config: how long a rank may make no progress.
    """

    def __init__(self, folder: Path, ranks: Ranks, config: FaultsConfig) -> None:
        self._folder = folder / "ranks"
        self._ranks = ranks
        self._config = config
        self._shared: bytearray | mmap = bytearray(BEAT_SIZE)
        self._monitor: subprocess.Popen[bytes] | None = None
        self._stacks = -1
        self._beats = self._step = 0
        self._doing = "start"
        self._limit = config.timeout

    def beat(self, step: int, doing: str) -> None:
        """Report progress of this rank; it takes about a microsecond.

        Args:
            step: current step, from 1.
            doing: phase that starts now, one word.
        """
        self._step, self._doing = step, doing
        self._beats += 1
        self._shared[:] = Beat(self._beats, step, self._limit, doing).pack()

    @contextmanager
    def slow_phase(self, doing: str) -> Iterator[None]:
        """Allow `faults.slow_phase_timeout` between two beats inside.

        Args:
            doing: phase that starts now, one word.
        """
        before, self._limit = (self._doing, self._limit), self._config.slow_phase_timeout
        self.beat(self._step, doing)
        try:
            yield
        finally:
            doing, self._limit = before
            self.beat(self._step, doing)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this rank inside.

        Raises:
            RanksLost: other ranks are gone, which has caused a RuntimeError inside.
        """
        self.start()
        final = FAILED
        try:
            yield
            final = ""
        except MegaptError:  # All ranks raise it together.
            final = ""
            raise
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # A collective of gloo or NCCL raises it if another rank is gone.
            if lost := self._lost_ranks():
                final = LEFT
                raise lost from error
            raise
        finally:
            self.stop(final)

    def start(self) -> None:
        """Start to watch; all ranks call it together.

        Raises:
            ConfigError: on all ranks, if another job trains in the folder.
        """
        with self._ranks.shared_errors():
            if self._ranks.main:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._refuse_other_job()
                for file in self._folder.glob("rank-*.json"):
                    file.unlink()
        # If a rank monitor has died, this still ends a job that hangs, without naming the rank.
        set_timeout(max(self._config.timeout, self._config.slow_phase_timeout) + _MARGIN)
        beats, self._stacks = os.memfd_create("beats"), os.memfd_create("stacks")
        os.ftruncate(beats, BEAT_SIZE)
        self._shared = mmap(beats, BEAT_SIZE)
        self.beat(self._step, self._doing)
        # A descriptor of memory: the stacks are written in a signal handler, and disks may hang.
        faulthandler.register(STACK_SIGNAL, file=self._stacks, all_threads=True)
        heartbeat = Heartbeat(self._ranks.rank, socket.gethostname(), os.getpid())
        write_heartbeat(self._folder, heartbeat)
        task = {
            "folder": str(self._folder.resolve()),
            "rank": heartbeat.rank,
            "host": heartbeat.host,
            "pid": heartbeat.pid,  # The rank may be gone before the monitor can ask for its parent.
            "world": self._ranks.world,
            "timeout": self._config.timeout,
            "beats": beats,
            "stacks": self._stacks,
        }
        # The monitor inherits the mask.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_SIGNALS)
        try:
            self._monitor = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _MONITOR_CODE, json.dumps(task)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(beats, self._stacks),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(beats)
        threading.Thread(target=self._end_when_notified, args=(self._monitor,), daemon=True).start()
        self._ranks.barrier()  # From here on, no heartbeat is from an earlier start.

    def stop(self, state: str = "") -> None:
        """Stop watching.

        Args:
            state: final state of this rank, which its heartbeat keeps for the others; by default
                the heartbeat is removed.
        """
        if self._monitor is None:
            return
        process, self._monitor = self._monitor, None
        mine = read_heartbeat(self._folder, self._ranks.rank)
        if mine is not None and mine.state == HUNG:
            process.wait()  # The monitor reports, and then ends this process.
        process.kill()
        process.wait()
        faulthandler.unregister(STACK_SIGNAL)
        os.close(self._stacks)
        rank = self._ranks.rank
        with suppress(OSError):  # It must not hide an error that ends the run.
            if state:
                heartbeat = Heartbeat(rank, socket.gethostname(), os.getpid(), state, self._step)
                write_heartbeat(self._folder, heartbeat)
            else:
                heartbeat_file(self._folder, rank).unlink()
                self._folder.rmdir()  # Succeeds on the last rank, if there are no stacks.

    def _end_when_notified(self, process: subprocess.Popen[bytes]) -> None:
        """End this process when the rank monitor asks for it, since the main thread cannot."""
        assert process.stdout is not None
        with process.stdout as pipe:
            notified = pipe.read(1)
        if notified:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(Exit.LOST_PROCESS)
        if self._monitor is process:
            print(
                f"megapt: warning: rank {self._ranks.rank} is no longer watched: its rank monitor "
                f"has died",
                file=sys.stderr,
                flush=True,
            )

    def _refuse_other_job(self) -> None:
        """Refuse a folder in which the rank monitors of another job are alive."""
        other = read_heartbeat(self._folder, 0)
        if other is None or other.state != ALIVE:
            return
        end = time.monotonic() + pulse_wait(16.0)
        while time.monotonic() < end:
            time.sleep(_POLL)
            now = read_heartbeat(self._folder, 0)
            if now is None or now.state != ALIVE:
                return
            if now.pulse != other.pulse:
                raise ConfigError(
                    f"{self._folder.parent}: another job trains here: {other.label()}; end it first"
                )

    def _lost_ranks(self) -> RanksLost | None:
        """Return an error if other ranks are gone: their monitors say so or do not answer."""
        mine, world = self._ranks.rank, self._ranks.world
        first = heartbeats = read_heartbeats(self._folder, world)
        end = time.monotonic() + pulse_wait(self._config.timeout)
        lost: dict[int, str] = {}
        while not lost and time.monotonic() < end:
            time.sleep(_POLL)
            heartbeats = read_heartbeats(self._folder, world)
            lost = {
                r: _LOST[h.state] for r, h in heartbeats.items() if h.state in _LOST and r != mine
            }
        if not lost:
            still = [r for r, h in heartbeats.items() if r in first and h.pulse == first[r].pulse]
            lost = {r: "and its host do not answer" for r in still if heartbeats[r].state == ALIVE}
        if not lost:
            return None
        # These ranks, or their monitors, print what is wrong.
        reported = {heartbeats[rank].state for rank in lost} & {FAILED, HUNG}
        if reported:
            return RanksLost("", Exit.FAILED if reported == {FAILED} else Exit.LOST_PROCESS)
        if min(rank for rank in range(world) if rank not in lost) < mine:
            return RanksLost("")
        lines = [
            f"{heartbeats[r].label()} {how} in {heartbeats[r].place()}" for r, how in lost.items()
        ]
        more = [f"and {len(lines) - _MAX_NAMED} more"] if len(lines) > _MAX_NAMED else []
        return RanksLost("; ".join(lines[:_MAX_NAMED] + more))
