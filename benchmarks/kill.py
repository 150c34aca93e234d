"""The kill test: SIGKILL builds at random moments, start them again, compare every byte.

    python -m benchmarks.kill --input bench/english.jsonl --work bench/kill

Builds run with local processes and under `mpirun -n 3` in turn. Each is killed one to three times
(one of its processes, its parent, or all of them) and started again after each kill; the last start
runs to its end. Its corpus must then equal that of an undisturbed build, byte by byte. In between,
there must be either no corpus or a complete one, no process may outlive its killed parent, and
nothing may hang. The exit code is 1 if any of these fails.

As root, Open MPI needs OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, and the
same two variables with PRTE instead of OMPI.
"""

import argparse
import hashlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import cut_corpus, header, print_header, table

VICTIMS = ("one process", "the parent", "all processes")
ORPHAN_SECONDS = 30.0


class Tried(NamedTuple):
    """The result of one build: effective kills by victim, and faults."""

    kills: Counter[str]
    faults: list[str]


def descendants(root: int) -> list[int]:
    """Return the current descendants of `root`, the nearest first."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                # "pid (name) state ppid …"; the name may hold anything, even brackets.
                status = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if status[0] != "Z":
                children[int(status[1])].append(int(entry.name))
    found = [root]
    for process in found:
        found += children[process]
    return found[1:]


def is_running(process: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def end(processes: Sequence[int]) -> None:
    """Send SIGKILL to the processes that still exist."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a corpus."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a build in a new session; its output is appended to `log`."""
    with open(log, "ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)


class KillTest:
    """Builds one corpus again and again.

    Args:
        commands: the build command of each executor.
        output: the corpus folder that they write.
        expected: digests of the corpus of an undisturbed build.
        seconds: seconds of an undisturbed build, by executor.
        chance: random generator of victims and times.
    """

    def __init__(
        self,
        commands: dict[str, list[str]],
        output: Path,
        expected: dict[str, str],
        seconds: dict[str, float],
        chance: random.Random,
    ) -> None:
        self.commands = commands
        self.output = output
        self.expected = expected
        self.seconds = seconds
        self.chance = chance
        self.log = output.with_suffix(".log")

    def try_build(self, executor: str) -> Tried:
        """Kill a build one to three times, then let it end."""
        remove(self.output)
        tried = Tried(Counter(), [])
        for _ in range(self.chance.randint(1, 3)):
            if self._disturb(executor, tried) or tried.faults:
                break
        if not tried.faults:
            self._finish(executor, tried)
        return tried

    def _disturb(self, executor: str, tried: Tried) -> bool:
        """Start a build and kill it; return whether the corpus was finished nevertheless."""
        process = start(self.commands[executor], self.log)
        time.sleep(self.chance.uniform(0, self.seconds[executor]))
        below = descendants(process.pid)
        victim = self.chance.choice(VICTIMS)
        if process.poll() is None and (below or victim != "one process"):
            if victim == "one process":
                end([self.chance.choice(below)])
            elif victim == "the parent":
                end([process.pid])
            else:
                end([process.pid, *below])
            tried.kills[victim] += 1
        limit = 10 * self.seconds[executor] + ORPHAN_SECONDS
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            tried.faults.append(f"hung for {limit:.0f} s after the kill of {victim}")
            end([process.pid, *descendants(process.pid)])
            process.wait()
            return False
        self._wait_for(below, victim, tried)
        if (code == 0 or self.output.exists()) and digests(self.output) != self.expected:
            tried.faults.append(f"an incomplete corpus after the kill of {victim}")
        return code == 0

    def _wait_for(self, processes: Sequence[int], victim: str, tried: Tried) -> None:
        """Wait until all processes of an ended build have ended; note a fault if they do not."""
        limit = time.monotonic() + ORPHAN_SECONDS
        while time.monotonic() < limit:
            if not any(map(is_running, processes)):
                return
            time.sleep(0.05)
        tried.faults.append(f"processes outlived the kill of {victim}")
        end([process for process in processes if is_running(process)])

    def _finish(self, executor: str, tried: Tried) -> None:
        process = start(self.commands[executor], self.log)
        try:
            code = process.wait(10 * self.seconds[executor] + ORPHAN_SECONDS)
        except subprocess.TimeoutExpired:
            tried.faults.append("the last build hung")
            end([process.pid, *descendants(process.pid)])
            process.wait()
            return
        if code != 0:
            tried.faults.append(f"the last build failed with exit code {code}")
        elif digests(self.output) != self.expected:
            tried.faults.append("the corpus differs from the undisturbed one")


def remove(output: Path) -> None:
    """Remove a corpus and its work folder."""
    for folder in (output, output.with_name(output.name + ".partial")):
        shutil.rmtree(folder, ignore_errors=True)


def undisturbed(command: Sequence[str], output: Path) -> tuple[float, dict[str, str]]:
    """Build once; return the seconds and the digests of the corpus.

    Raises:
        SystemExit: if the build failed.
    """
    remove(output)
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\nfailed:\n{done.stderr.decode()[-2000:]}")
    return time.monotonic() - began, digests(output)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", type=Path, required=True, help="a .jsonl file of corpora.py")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    parser.add_argument("--tokenizer", type=Path, help="trained on the input if not given")
    parser.add_argument("--kills", type=int, default=60, help="at least as many must hit")
    parser.add_argument("--mb", type=float, default=40, help="text to build from")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
    parser.add_argument(
        "--executors", nargs="+", choices=("local", "mpi"), default=["local", "mpi"]
    )
    parser.add_argument("--mpirun", default="mpirun -n 3 --oversubscribe")
    parser.add_argument("--prep", default=f"{sys.executable} -m data_prep.cli")
    parser.add_argument("--build-options", default="", help="further options of build, in quotes")
    options = parser.parse_args()
    prep, work = shlex.split(options.prep), options.work
    work.mkdir(parents=True, exist_ok=True)
    text, output = work / "text.jsonl", work / "corpus"
    cut_corpus(options.input, text, int(options.mb * 1e6))
    tokenizer = options.tokenizer or work / "tokenizer" / "tokenizer.model"
    if not tokenizer.exists():
        command = [*prep, "tokenizer", "--input", str(text), "--output", str(tokenizer.parent)]
        subprocess.run([*command, "--vocab-size", "32000", "--sample-mb", "20"], check=True)
    build = [*prep, "build", "--input", str(text), "--tokenizer", str(tokenizer)]
    build += ["--output", str(output), *shlex.split(options.build_options)]
    commands = {
        "local": [*build, "--workers", "2"],
        "mpi": [*shlex.split(options.mpirun), *build, "--executor", "mpi"],
    }
    print_header(header())
    seconds, found = {}, {}
    for executor in options.executors:
        seconds[executor], found[executor] = undisturbed(commands[executor], output)
    expected = found[options.executors[0]]
    test = KillTest(commands, output, expected, seconds, random.Random(options.seed))
    builds: Counter[str] = Counter()
    kills: Counter[tuple[str, str]] = Counter()
    faults = [name for name in options.executors if found[name] != expected]
    faults = [f"{name}: the undisturbed corpus differs" for name in faults]
    while sum(kills.values()) < options.kills and not faults:
        executor = options.executors[sum(builds.values()) % len(options.executors)]
        tried = test.try_build(executor)
        builds[executor] += 1
        kills.update({(executor, victim): count for victim, count in tried.kills.items()})
        faults += [f"{executor}: {fault}" for fault in tried.faults]
        print(f"{sum(kills.values())} of {options.kills} kills", file=sys.stderr, flush=True)
    rows = [
        [name, f"{seconds[name]:.1f}", str(builds[name]), *(str(kills[name, v]) for v in VICTIMS)]
        for name in options.executors
    ]
    print(table(["executor", "seconds", "builds", *(f"kills of {v}" for v in VICTIMS)], rows))
    print(f"{sum(kills.values())} kills, {sum(builds.values())} builds, seed {options.seed}:")
    print("\n".join(faults) or "every corpus is identical to the undisturbed one")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
