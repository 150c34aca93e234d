"""What is known of each rank while a job runs: a small file in the run folder, RUN/ranks.

Each is written by the monitor of its rank and read, when something is wrong, by those of other
ranks. Standard library only; see `rank_monitor`.
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
"""Bytes of a heartbeat file. It is written in place: over NFS a new file is seen late."""
STATES = {
    "R": "it computes",
    "S": "it waits",
    "D": "it waits for a disk or device",
    "T": "process stopped",
    "t": "process stopped by a debugger",
}
"""What a hung rank does, by the letter of proc(5)."""


@dataclass
class Heartbeat:
    """What is known of a rank; the content of its file."""

    rank: int
    host: str
    pid: int
    state: str = ALIVE
    """`alive`; `hung`: ended by its monitor; `killed`: gone without a word; `failed`: by an error
    that it has told; `left`: because others were gone."""
    step: int = 0
    doing: str = "start"
    beats: int = 0
    """Ranks in lockstep have the same number: who has fewer is behind."""
    still: float = 0.0
    """Seconds since the last beat."""
    process: str = ""
    """Of a hung rank: what the system says of it."""
    at: str = ""
    """Of a hung rank: the Python line that its main thread is at."""
    told: bool = False
    """Of a hung rank: whether it has said who is to blame."""
    pulse: int = 0
    """Goes up as long as the monitor lives."""

    def says(self) -> str:
        """Return who this is, for people."""
        return f"rank {self.rank} on host {self.host} (pid {self.pid})"

    def place(self) -> str:
        """Return where in the run it is, for people."""
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
    """Read a heartbeat; None if there is none, or it is being written."""
    with suppress(OSError, ValueError, TypeError):
        return Heartbeat(**json.loads(heartbeat_file(folder, rank).read_bytes()))
    return None


def read_heartbeats(folder: Path, world: int) -> dict[int, Heartbeat]:
    """Read the heartbeats of all ranks that have one."""
    heartbeats = {rank: read_heartbeat(folder, rank) for rank in range(world)}
    return {rank: heartbeat for rank, heartbeat in heartbeats.items() if heartbeat is not None}


def stacks_file(folder: Path, rank: int) -> Path:
    """Return the file to which the stacks of a rank are added when it hangs."""
    return folder / f"stacks-rank-{rank:05d}.txt"


def interval(timeout: float) -> float:
    """Return the seconds between two heartbeats, for a limit of `timeout` seconds."""
    return min(2.0, timeout / 8)


def settling(timeout: float) -> float:
    """Return the seconds in which the pulse of every living monitor goes up."""
    return 1.5 * interval(timeout) + 0.5


def suspects(heartbeats: list[Heartbeat], silent: set[int]) -> list[Heartbeat]:
    """Return which of all ranks keep the others from going on.

    Those that are gone or do not run; else those with the fewest beats; else those that are at
    another line than most; else all.

    Args:
        heartbeats: of the ranks.
        silent: ranks whose wardens, and so their hosts, no longer answer.
    """
    gone = [h for h in heartbeats if h.state in (KILLED, FAILED) or h.rank in silent]
    gone += [h for h in heartbeats if h not in gone and h.process == STATES["T"]]
    if gone:
        return gone
    least, most = min(h.beats for h in heartbeats), max(h.beats for h in heartbeats)
    if least < most:
        return [h for h in heartbeats if h.beats == least]
    (usual, votes), *_ = Counter(h.at for h in heartbeats).most_common(1)
    if 2 * votes > len(heartbeats):
        return [h for h in heartbeats if h.at != usual] or heartbeats
    return heartbeats


def innermost(stacks: str) -> str:
    """Return the line that the main thread is at, of faulthandler's text: `a.py:57 in step`."""
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
