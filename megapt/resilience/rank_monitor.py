"""The process next to each rank that notices when the rank hangs, and ends it.

A rank cannot watch itself: it runs none of its threads while it is stopped, or while it computes in
C and holds the GIL. So a separate process watches it, which needs only the standard library. The
rank reports its progress through shared memory, and the monitor writes the rank's heartbeat.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from megapt.resilience.heartbeats import (
    FAILED,
    HUNG,
    KILLED,
    STATES,
    Heartbeat,
    innermost,
    interval,
    pulse_wait,
    read_heartbeat,
    read_heartbeats,
    stacks_file,
    suspects,
    write_heartbeat,
)

_BEAT = struct.Struct("<QQd40s")
_CHECKSUM = struct.Struct("<I")
BEAT_SIZE = _BEAT.size + _CHECKSUM.size
STACK_SIGNAL = signal.SIGQUIT
"""Makes a rank write the stacks of all its threads, as in Java and Go programs."""
_TICK = 0.25
"""Seconds between two checks of the rank."""
_POLL = 0.1
"""Seconds between two checks while this process waits for something."""
_RANK_TIMEOUT = 3.0
"""Seconds that a rank has to write its stacks, and later to end."""
_FILE_TIMEOUT = 20.0
"""Seconds that the file system has before a rank is ended without a report."""
_MAX_REPORTED = 8
"""Ranks that a report names, and loader processes whose stacks it has."""


class Beat(NamedTuple):
    """Progress that a rank shares with its monitor. Each beat overwrites the one before."""

    number: int
    """Beats so far."""
    step: int
    limit: float
    """Seconds that the next beat may take."""
    doing: str
    """Phase that the rank starts, one word."""

    def pack(self) -> bytes:
        """Return `BEAT_SIZE` bytes, with a checksum."""
        body = _BEAT.pack(self.number, self.step, self.limit, self.doing.encode())
        return body + _CHECKSUM.pack(crc32(body))

    @classmethod
    def unpack(cls, data: bytes) -> Beat | None:
        """Return the beat; None if it was read while the rank wrote it."""
        if crc32(data[: _BEAT.size]) != _CHECKSUM.unpack_from(data, _BEAT.size)[0]:
            return None
        number, step, limit, doing = _BEAT.unpack_from(data)
        return cls(number, step, limit, doing.rstrip(b"\0").decode(errors="replace"))


class RankMonitor:
    """Watches the process that started it.

    Args:
        folder: RUN/ranks.
        heartbeat: heartbeat of the rank at its start.
        world: number of ranks.
        timeout: seconds that determine the interval between heartbeats; see `interval`.
        beats: file descriptor of the shared memory with the last beat.
        stacks: file descriptor of the file to which the rank writes its stacks.
    """

    def __init__(
        self,
        folder: Path,
        heartbeat: Heartbeat,
        world: int,
        timeout: float,
        beats: int,
        stacks: int,
    ) -> None:
        self._folder = folder
        self._heartbeat = heartbeat
        self._world = world
        self._timeout = timeout
        self._shared = mmap(beats, BEAT_SIZE)
        self._limit = timeout
        self._stacks = stacks
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Watch until the rank has ended, by itself or because this monitor has ended it."""
        # In a thread, because the file system may hang, and then the rank hangs too.
        threading.Thread(target=self._keep_heartbeat, daemon=True).start()
        seen, launcher = time.monotonic(), self._launcher()
        while True:
            time.sleep(_TICK)
            here = os.getppid() == self._heartbeat.pid
            # If this process was suspended too, as in a suspended job, only 4 ticks count.
            seen, passed = time.monotonic(), min(time.monotonic() - seen, 4 * _TICK)
            self._check(passed)
            if not here:
                with suppress(OSError):  # Then the others see that its pulse has stopped.
                    self._write(KILLED)
                return
            if self._world > 1 and (now := self._launcher()) not in ("", launcher):
                launcher = now
                who = f"megapt: error: {self._heartbeat.label()}"
                print(f"{who} saves and ends: its launcher has died", file=sys.stderr, flush=True)
                with suppress(ProcessLookupError):
                    os.kill(self._heartbeat.pid, signal.SIGTERM)
            if self._heartbeat.still > self._limit:
                self._end_rank()
                return

    def _check(self, passed: float) -> None:
        """Read the last beat of the rank, `passed` seconds after the last check."""
        heartbeat = self._heartbeat
        heartbeat.still += passed
        beat = Beat.unpack(self._shared[:])
        if beat is None or beat.number == heartbeat.beats:
            return
        heartbeat.still, self._limit = 0.0, beat.limit
        heartbeat.beats, heartbeat.step, heartbeat.doing = beat.number, beat.step, beat.doing

    def _keep_heartbeat(self) -> None:
        while True:
            with suppress(OSError):  # For example a full disk; the next write may succeed.
                self._write()
            time.sleep(interval(self._timeout))

    def _write(self, state: str | None = None) -> None:
        with self._lock:
            self._heartbeat.state = state or self._heartbeat.state
            self._heartbeat.pulse += 1
            write_heartbeat(self._folder, self._heartbeat)

    def _end_rank(self) -> None:
        """Report the hang and ask the rank to end; kill it if it does not."""
        pid = self._heartbeat.pid
        self._heartbeat.process = STATES.get(self._stat()[0], "")
        report = threading.Thread(target=self._report, daemon=True)
        report.start()
        report.join(_FILE_TIMEOUT)
        if report.is_alive():
            self._print(self._heartbeat, f"the file system of {self._folder} does not answer")
        with suppress(BrokenPipeError, ProcessLookupError):  # It may have ended by itself.
            os.write(1, b"!")
            end = time.monotonic() + _RANK_TIMEOUT
            while os.getppid() == pid and time.monotonic() < end:
                time.sleep(_POLL)
            if os.getppid() == pid:
                os.kill(pid, signal.SIGKILL)

    def _stat(self) -> list[str]:
        """Return the fields of the rank's /proc/PID/stat from its state on; see proc(5)."""
        with suppress(OSError):
            stat = Path(f"/proc/{self._heartbeat.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()
        return ["", ""]

    def _launcher(self) -> str:
        """Return the id of the process that started the rank."""
        return self._stat()[1]

    def _dump(self, pid: int) -> str:
        """Make a process write its stacks, and return them. A stopped process continues."""
        before = size = os.fstat(self._stacks).st_size
        for number in (STACK_SIGNAL, signal.SIGCONT):
            os.kill(pid, number)
        end = time.monotonic() + _RANK_TIMEOUT
        while time.monotonic() < end:
            time.sleep(_POLL)
            last, size = size, os.fstat(self._stacks).st_size
            if before < last == size:
                break
        text = os.pread(self._stacks, size - before, before).decode(errors="replace")
        if spy := shutil.which("py-spy"):
            command = [spy, "dump", "--native", "--pid", str(pid)]
            with suppress(subprocess.TimeoutExpired):
                found = subprocess.run(
                    command, capture_output=True, text=True, timeout=_RANK_TIMEOUT
                )
                text += f"\npy-spy:\n{found.stdout}{found.stderr}"
        return text

    def _loaders(self) -> list[int]:
        """Return the ids of the rank's loader processes, forked from it, which write stacks too."""
        found = []
        with suppress(OSError):
            pids = Path(
                f"/proc/{self._heartbeat.pid}/task/{self._heartbeat.pid}/children"
            ).read_text()
            for pid in map(int, pids.split()):
                status = Path(f"/proc/{pid}/status").read_text()
                caught = int(status.partition("SigCgt:")[2].split()[0], 16)
                if pid != os.getpid() and caught >> (STACK_SIGNAL - 1) & 1:
                    found.append(pid)
        return found[:_MAX_REPORTED]

    def _report(self) -> None:
        """Write stacks and heartbeat. The first hung rank reports which ranks cause the hang."""
        stopped = self._heartbeat.process == STATES["T"]
        try:
            if not stopped:
                self._keep_stacks()
            self._report_suspects()
            # Writing its stacks wakes the rank up. Before the report, the others would continue.
            if stopped:
                self._keep_stacks()
        except OSError as error:
            self._print(
                self._heartbeat, f"{self._folder}: the report cannot be written: {error.strerror}"
            )

    def _keep_stacks(self) -> None:
        text = self._dump(self._heartbeat.pid)
        self._heartbeat.at = innermost(text)
        for pid in self._loaders():
            text += f"\nloader process {pid}:\n{self._dump(pid)}"
        line = f"{time.strftime('%F %T')} {self._heartbeat.label()}, {self._heartbeat.place()}"
        with open(stacks_file(self._folder, self._heartbeat.rank), "a", encoding="utf-8") as file:
            file.write(f"{line}\n{text}\n")

    def _report_suspects(self) -> None:
        """Print which ranks cause the hang, or wait until a rank before this one has done so."""
        heartbeat, wait = self._heartbeat, pulse_wait(self._timeout)
        self._write(HUNG)
        time.sleep(wait)
        for rank in range(heartbeat.rank):
            earlier = read_heartbeat(self._folder, rank)
            if earlier is not None and earlier.state == HUNG:
                self._wait_for(rank, 2 * wait)
                return
        first = read_heartbeats(self._folder, self._world)
        time.sleep(wait)
        heartbeats = read_heartbeats(self._folder, self._world)
        silent = {r for r, h in heartbeats.items() if r in first and h.pulse == first[r].pulse}
        found = suspects(list(heartbeats.values()), silent)
        for each in found[:_MAX_REPORTED]:
            self._print(each, self._reason(each, each.rank in silent))
        if more := found[_MAX_REPORTED:]:
            print(f"megapt: error: and {len(more)} more ranks", file=sys.stderr, flush=True)
        heartbeat.told = True
        self._write()

    def _wait_for(self, rank: int, seconds: float) -> None:
        """Wait until another rank has reported: the launcher may end the job when this one ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_POLL)
            heartbeat = read_heartbeat(self._folder, rank)
            if heartbeat is not None and heartbeat.told:
                return

    def _reason(self, heartbeat: Heartbeat, silent: bool) -> str:
        if heartbeat.state == KILLED:
            return "it was killed"
        if heartbeat.state == FAILED:
            return "it has failed"
        if silent:
            return "its host does not answer"
        at = f" at {heartbeat.at}" if heartbeat.at else ""
        return f"{heartbeat.process or 'it is stuck'}{at}; stacks in {self._folder}"

    def _print(self, heartbeat: Heartbeat, reason: str) -> None:
        line = (
            f"megapt: error: {heartbeat.label()} has made no progress since {heartbeat.place()} "
            f"for {heartbeat.still:.0f} s: {reason}"
        )
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Watch the rank that the only argument describes, as JSON."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    heartbeat = Heartbeat(task["rank"], task["host"], task["pid"])
    RankMonitor(
        Path(task["folder"]),
        heartbeat,
        task["world"],
        task["timeout"],
        task["beats"],
        task["stacks"],
    ).watch()
