"""Heartbeats: one small file per rank in RUN/ranks, while a job runs.

The monitor of a rank writes its file. The monitors of other ranks read it when something is wrong.
Standard library only; see `rank_monitor`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ALIVE, HUNG, KILLED, FAILED, LEFT = "alive", "hung", "killed", "failed", "left"
_SIZE = 1024
"""Bytes of a heartbeat file. It is written in place: over NFS a new file becomes visible late."""
STATES = {
    "R": "it computes",
    "S": "it waits",
    "D": "it waits for a disk or device",
    "T": "process stopped",
    "t": "process stopped by a debugger",
}
"""What a hung rank does, by its process state in proc(5)."""


@dataclass
class Heartbeat:
    """State of a rank; the content of its file."""

    rank: int
    host: str
    pid: int
    state: str = ALIVE
    """`alive`; `hung`: ended by its monitor; `killed`: ended without an error; `failed`: ended by
    an error that it has printed; `left`: ended because other ranks were gone."""
    step: int = 0
    doing: str = "start"
    """Phase of the step, one word."""
    beats: int = 0
    """Beats so far. Ranks in lockstep have the same number, so a rank with fewer is behind."""
    still: float = 0.0
    """Seconds since the last beat."""
    process: str = ""
    """Of a hung rank: its process state, as in `STATES`."""
    at: str = ""
    """Of a hung rank: the current Python line of its main thread."""
    told: bool = False
    """Of a hung rank: whether its monitor has reported which ranks cause the hang."""
    pulse: int = 0
    """Increases as long as the monitor lives."""

    def label(self) -> str:
        """Return rank, host and process for messages."""
        return f"rank {self.rank} on host {self.host} (pid {self.pid})"

    def place(self) -> str:
        """Return step and phase for messages."""
        return f"step {self.step} ({self.doing})"


def heartbeat_file(folder: Path, rank: int) -> Path:
    """Return the heartbeat file of a rank; `folder` is RUN/ranks."""
    return folder / f"rank-{rank:05d}.json"


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Write a heartbeat in place, in one system call."""
    text = json.dumps(asdict(heartbeat), ensure_ascii=False).encode().ljust(_SIZE) + b"\n"
    handle = os.open(heartbeat_file(folder, heartbeat.rank), os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.pwrite(handle, text, 0)
    finally:
        os.close(handle)


def read_heartbeat(folder: Path, rank: int) -> Heartbeat | None:
    """Read the heartbeat of a rank; None if there is none, or it is just being written."""
    with suppress(OSError, ValueError, TypeError):
        return Heartbeat(**json.loads(heartbeat_file(folder, rank).read_bytes()))
    return None


def read_heartbeats(folder: Path, world: int) -> dict[int, Heartbeat]:
    """Read the heartbeats of all ranks that have one."""
    heartbeats = {rank: read_heartbeat(folder, rank) for rank in range(world)}
    return {rank: heartbeat for rank, heartbeat in heartbeats.items() if heartbeat is not None}


def stacks_file(folder: Path, rank: int) -> Path:
    """Return the file to which the stacks of a rank are appended when it hangs."""
    return folder / f"stacks-rank-{rank:05d}.txt"


def interval(timeout: float) -> float:
    """Return the seconds between two heartbeats, for a timeout in seconds."""
    return min(2.0, timeout / 8)


def pulse_wait(timeout: float) -> float:
    """Return the seconds within which every living monitor increases its pulse."""
    return 1.5 * interval(timeout) + 0.5


def suspects(heartbeats: list[Heartbeat], silent: set[int]) -> list[Heartbeat]:
    """Return the ranks that keep the others from continuing.

    These are the ranks that are gone or stopped. If there are none, they are the ranks with the
    fewest beats. If all have the same number, they are the ranks at another line than the majority.
    Otherwise all ranks are returned.

    Args:
        heartbeats: heartbeats of all ranks.
        silent: ranks whose monitors do not answer, so their hosts are down.
    """
    gone = [h for h in heartbeats if h.state in (KILLED, FAILED) or h.rank in silent]
    gone += [h for h in heartbeats if h not in gone and h.process == STATES["T"]]
    if gone:
        return gone
    least, most = min(h.beats for h in heartbeats), max(h.beats for h in heartbeats)
    if least < most:
        return [h for h in heartbeats if h.beats == least]
    (majority, count), *_ = Counter(h.at for h in heartbeats).most_common(1)
    if 2 * count > len(heartbeats):
        return [h for h in heartbeats if h.at != majority] or heartbeats
    return heartbeats


def innermost(stacks: str) -> str:
    """Return the current line of the main thread, `a.py:57 in step`, from faulthandler's text."""
    lines: list[str] = []
    for line in stacks.splitlines():
        if line.startswith(("Thread ", "Current thread ")):
            lines = []  # The main thread comes last.
        elif line.startswith("  File "):
            lines.append(line)
    if not lines:
        return ""
    name, _, rest = lines[0].strip().removeprefix('File "').partition('", line ')
    number, _, function = rest.partition(" in ")
    return f"{Path(name).name}:{number} in {function}"
