"""The process beside each rank that notices when the rank stands still, and ends it.

A rank cannot watch itself: one that was stopped, or computes in C without giving Python's lock
away, runs none of its threads. So a process does it, which needs nothing but the standard library.
It is told what the rank does through shared memory, and keeps the rank's heartbeat.
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
    read_heartbeat,
    read_heartbeats,
    settling,
    stacks_file,
    suspects,
    write_heartbeat,
)

_BEAT = struct.Struct("<QQd40s")
_SUM = struct.Struct("<I")
BEAT_SIZE = _BEAT.size + _SUM.size
STACK_SIGNAL = signal.SIGQUIT
"""Has a rank write the stacks of all its threads, as it has Java and Go programs do."""
_TICK = 0.25
"""Seconds between two looks at the rank."""
_SOON = 0.1
"""Seconds between two looks at what is about to happen."""
_PATIENCE = 3.0
"""Seconds that a rank gets to write its stacks, and later to end."""
_FILE_PATIENCE = 20.0
"""Seconds that the file system gets before a rank is ended without a report."""
_MOST = 8
"""Ranks of which a report says more than their number; loader processes whose stacks it has."""


class Beat(NamedTuple):
    """What a rank shares with its monitor: the last beat, over the one before."""

    number: int
    """Beats so far."""
    step: int
    limit: float
    """Seconds that the next beat may take."""
    doing: str
    """What the rank begins with, a word."""

    def pack(self) -> bytes:
        """Return `BEAT_SIZE` bytes that say whether they are whole."""
        body = _BEAT.pack(self.number, self.step, self.limit, self.doing.encode())
        return body + _SUM.pack(crc32(body))

    @classmethod
    def unpack(cls, data: bytes) -> Beat | None:
        """Return the beat; None if it was read while the rank wrote it."""
        if crc32(data[: _BEAT.size]) != _SUM.unpack_from(data, _BEAT.size)[0]:
            return None
        number, step, limit, doing = _BEAT.unpack_from(data)
        return cls(number, step, limit, doing.rstrip(b"\0").decode(errors="replace"))


class RankMonitor:
    """Watches the process that started it.

    Args:
        folder: RUN/ranks.
        heartbeat: of the rank, at its start.
        world: ranks of the job.
        timeout: by which the heartbeats go.
        beats: file descriptor of the shared memory.
        stacks: file descriptor of what the rank writes at STACK_SIGNAL.
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
        """Return when the rank has ended, by itself or by this."""
        # The file system may hang, which is when this is needed most.
        threading.Thread(target=self._keep_heartbeat, daemon=True).start()
        seen, launcher = time.monotonic(), self._launcher()
        while True:
            time.sleep(_TICK)
            here = os.getppid() == self._heartbeat.pid
            # Of a pause of this process itself, as of the whole job's, little counts.
            seen, passed = time.monotonic(), min(time.monotonic() - seen, 4 * _TICK)
            self._look(passed)
            if not here:
                with suppress(OSError):  # Then the others see that its pulse is still.
                    self._write(KILLED)
                return
            if self._world > 1 and (now := self._launcher()) not in ("", launcher):
                launcher = now
                who = f"megapt: error: {self._heartbeat.says()}"
                print(f"{who} saves and ends: its launcher has died", file=sys.stderr, flush=True)
                with suppress(ProcessLookupError):
                    os.kill(self._heartbeat.pid, signal.SIGTERM)
            if self._heartbeat.still > self._limit:
                self._end()
                return

    def _look(self, passed: float) -> None:
        """See what the rank does, `passed` seconds after the last look."""
        heartbeat = self._heartbeat
        heartbeat.still += passed
        beat = Beat.unpack(self._shared[:])
        if beat is None or beat.number == heartbeat.beats:
            return
        heartbeat.still, self._limit = 0.0, beat.limit
        heartbeat.beats, heartbeat.step, heartbeat.doing = beat.number, beat.step, beat.doing

    def _keep_heartbeat(self) -> None:
        while True:
            with suppress(OSError):  # A full disk, say: the next one may be written.
                self._write()
            time.sleep(interval(self._timeout))

    def _write(self, state: str | None = None) -> None:
        with self._lock:
            self._heartbeat.state = state or self._heartbeat.state
            self._heartbeat.pulse += 1
            write_heartbeat(self._folder, self._heartbeat)

    def _end(self) -> None:
        """Write what is known, tell the rank to end, and see to it."""
        pid = self._heartbeat.pid
        self._heartbeat.process = STATES.get(self._stat()[0], "")
        report = threading.Thread(target=self._report, daemon=True)
        report.start()
        report.join(_FILE_PATIENCE)
        if report.is_alive():
            self._say(self._heartbeat, f"and the file system of {self._folder} does not answer")
        with suppress(BrokenPipeError, ProcessLookupError):  # It may have ended by itself.
            os.write(1, b"!")
            end = time.monotonic() + _PATIENCE
            while os.getppid() == pid and time.monotonic() < end:
                time.sleep(_SOON)
            if os.getppid() == pid:
                os.kill(pid, signal.SIGKILL)

    def _stat(self) -> list[str]:
        """Return what the system knows of the rank, from its state on; see proc(5)."""
        with suppress(OSError):
            stat = Path(f"/proc/{self._heartbeat.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()
        return ["", ""]

    def _launcher(self) -> str:
        """Return the number of the process that started the rank."""
        return self._stat()[1]

    def _dump(self, pid: int) -> str:
        """Have a process write its stacks, and return them; it is not stopped afterwards."""
        before = size = os.fstat(self._stacks).st_size
        for number in (STACK_SIGNAL, signal.SIGCONT):
            os.kill(pid, number)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            time.sleep(_SOON)
            last, size = size, os.fstat(self._stacks).st_size
            if before < last == size:
                break
        text = os.pread(self._stacks, size - before, before).decode(errors="replace")
        if spy := shutil.which("py-spy"):
            command = [spy, "dump", "--native", "--pid", str(pid)]
            with suppress(subprocess.TimeoutExpired):
                found = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
                text += f"\npy-spy:\n{found.stdout}{found.stderr}"
        return text

    def _loaders(self) -> list[int]:
        """Return the rank's loader processes, which were forked from it and write stacks too."""
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
        return found[:_MOST]

    def _report(self) -> None:
        """Write stacks and heartbeat; the first of the hung ranks tells who is to blame."""
        stopped = self._heartbeat.process == STATES["T"]
        try:
            if not stopped:
                self._keep_stacks()
            self._tell()
            if stopped:  # It has to be woken for that, and earlier the others would have gone on.
                self._keep_stacks()
        except OSError as error:
            self._say(self._heartbeat, f"and {self._folder} takes no report: {error.strerror}")

    def _keep_stacks(self) -> None:
        text = self._dump(self._heartbeat.pid)
        self._heartbeat.at = innermost(text)
        for pid in self._loaders():
            text += f"\nloader process {pid}:\n{self._dump(pid)}"
        line = f"{time.strftime('%F %T')} {self._heartbeat.says()}, {self._heartbeat.place()}"
        with open(stacks_file(self._folder, self._heartbeat.rank), "a", encoding="utf-8") as file:
            file.write(f"{line}\n{text}\n")

    def _tell(self) -> None:
        """Say which ranks are to blame, or wait until a rank before this one has said so."""
        heartbeat, settle = self._heartbeat, settling(self._timeout)
        self._write(HUNG)
        time.sleep(settle)
        for rank in range(heartbeat.rank):
            lower = read_heartbeat(self._folder, rank)
            if lower is not None and lower.state == HUNG:
                self._wait_for(rank, 2 * settle)
                return
        first = read_heartbeats(self._folder, self._world)
        time.sleep(settle)
        heartbeats = read_heartbeats(self._folder, self._world)
        silent = {r for r, h in heartbeats.items() if r in first and h.pulse == first[r].pulse}
        found = suspects(list(heartbeats.values()), silent)
        for each in found[:_MOST]:
            self._say(each, self._why(each, each.rank in silent))
        if more := found[_MOST:]:
            print(f"megapt: error: and {len(more)} more ranks", file=sys.stderr, flush=True)
        heartbeat.told = True
        self._write()

    def _wait_for(self, rank: int, seconds: float) -> None:
        """Wait until another rank has told who is to blame: its job may end with this rank."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_SOON)
            heartbeat = read_heartbeat(self._folder, rank)
            if heartbeat is not None and heartbeat.told:
                return

    def _why(self, heartbeat: Heartbeat, silent: bool) -> str:
        if heartbeat.state == KILLED:
            return "it was killed"
        if heartbeat.state == FAILED:
            return "it has failed"
        if silent:
            return "its host does not answer"
        at = f" at {heartbeat.at}" if heartbeat.at else ""
        return f"{heartbeat.process or 'it stands still'}{at}; stacks in {self._folder}"

    def _say(self, heartbeat: Heartbeat, why: str) -> None:
        line = (
            f"megapt: error: {heartbeat.says()} has made no progress since {heartbeat.place()} for "
            f"{heartbeat.still:.0f} s: {why}"
        )
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Watch as the rank has asked for in the only argument, JSON."""
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
