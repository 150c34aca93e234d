"""Shared code of the benchmarks: header, running of commands, tables of interleaved repeats."""

import datetime
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

LIBRARIES = ("sentencepiece", "tokenizers", "tiktoken", "numpy", "pyarrow", "rjieba", "mpi4py")

Result = TypeVar("Result")


def header(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return where and when figures were measured: date, processor, memory, Python, libraries."""
    found = {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "Python": platform.python_version(),
    }
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_header(entries: Mapping[str, str]) -> None:
    """Print a header as a Markdown list."""
    print("\n".join(f"- {name}: {value}" for name, value in entries.items()) + "\n")


class Finished(NamedTuple):
    """A finished command."""

    seconds: float
    """Wall-clock seconds from its start to its end."""
    cpu_seconds: float
    """Processor seconds of all its processes."""
    peak_bytes: int
    """Largest resident size of any one of its processes."""
    output: str
    """Its standard output."""


def run(command: Sequence[str], cores: int | None = None) -> Finished:
    """Run a command to its end, on the first `cores` of the cores that this process may use.

    Raises:
        SystemExit: if it failed; its errors are printed.
    """
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=errors,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )
        # wait4 gives the usage of this command and of the processes that it waited for.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (output, errors):
            file.seek(0)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}\nfailed:\n{errors.read().decode()[-2000:]}")
        cpu = usage.ru_utime + usage.ru_stime
        return Finished(seconds, cpu, usage.ru_maxrss * 1024, output.read().decode())


def run_ranks(command: Sequence[str], world: int, **variables: str) -> list[str]:
    """Run a command as each rank of a job on this machine, one thread each.

    Args:
        command: joins the job that the environment describes, as under a launcher.
        world: number of ranks.
        variables: additional environment variables.

    Returns:
        The standard output of each rank.

    Raises:
        SystemExit: if a rank failed; its errors are printed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    usual = {**os.environ, **job, "OMP_NUM_THREADS": "1", **variables}
    ranks = [
        subprocess.Popen(
            command,
            env={**usual, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    ended = [rank.communicate() for rank in ranks]
    for rank, (_, errors) in zip(ranks, ended, strict=True):
        if rank.returncode:
            sys.exit(f"a rank failed:\n{errors[-3000:]}")
    return [printed for printed, _ in ended]


class Sample(NamedTuple):
    """One measurement."""

    seconds: float
    """Seconds of the whole command; for the bare loop, of the loop alone."""
    cpu_seconds: float
    """Processor seconds of all processes; more reliable than `seconds` on a busy machine."""
    peak_bytes: int
    """Largest resident size of any of its processes."""
    tokens: int = 0
    """Number of tokens, if the case counts them."""


class Case(NamedTuple):
    """A repeated measurement: its name, the size of its text, and one run of it."""

    name: str
    text_bytes: int
    measure: Callable[[], Sample]


class Ratio(NamedTuple):
    """The ratio of the median seconds of `slow` and of `fast`, and its target value."""

    title: str
    slow: str
    fast: str
    aim: str


def interleave(cases: Mapping[str, Callable[[], Result]], repeat: int) -> dict[str, list[Result]]:
    """Call every case `repeat` times, in turn: A B C A B C, so that drift affects all equally."""
    results: dict[str, list[Result]] = {name: [] for name in cases}
    for turn in range(repeat):
        for name, call in cases.items():
            print(f"{turn + 1}/{repeat} {name}", file=sys.stderr, flush=True)
            results[name].append(call())
    return results


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median with the smallest and largest value: "1.20 (1.10 to 1.40)"."""
    middle, low, high = statistics.median(values), min(values), max(values)
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def measure_cases(
    title: str,
    cases: list[Case],
    ratios: list[Ratio],
    repeat: int,
    starts: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """Interleave the cases, print the table and the ratios, and return all figures.

    Args:
        title: heading of the table.
        cases: the measurements.
        ratios: ratios of medians; "NAME, without start" is a time that `starts` defines.
        repeat: runs of each case.
        starts: pairs of a case and the same case on little text. The difference of their times,
            scaled to the whole text, is the time without the start of processes.
    """
    samples = interleave({case.name: case.measure for case in cases}, repeat)
    medians = {
        name: statistics.median(sample.seconds for sample in found)
        for name, found in samples.items()
    }
    rows = []
    for case in cases:
        seconds = [sample.seconds for sample in samples[case.name]]
        peak = max(sample.peak_bytes for sample in samples[case.name]) / 2**20
        cpu = statistics.median(sample.cpu_seconds for sample in samples[case.name])
        rate = _rate(case, medians[case.name])
        rows.append([case.name, spread(seconds), f"{cpu:.2f}", rate, f"{peak:.0f}"])
    known = {case.name: case for case in cases}
    for name, start in starts:
        whole, little = known[name].text_bytes, known[start].text_bytes
        left = (medians[name] - medians[start]) * whole / (whole - little)
        medians[f"{name}, without start"] = left
        rows.append([f"{name}, without start", f"{left:.2f}", "", _rate(known[name], left), ""])
    print(f"\n### {title}\n\n{cases[-1].text_bytes / 1e6:.1f} MB of text, {repeat} repetitions\n")
    print(table(["case, workers", "seconds", "CPU s", "MB/s", "largest process MiB"], rows))
    found_ratios = {r.title: round(medians[r.slow] / medians[r.fast], 3) for r in ratios}
    aims = [[r.title, f"{found_ratios[r.title]:.2f}", r.aim] for r in ratios]
    print(table(["ratio of medians", "found", "aim"], aims), flush=True)
    raw = {name: [sample._asdict() for sample in found] for name, found in samples.items()}
    return {"samples": raw, "medians": medians, "ratios": found_ratios}


def _rate(case: Case, seconds: float) -> str:
    return f"{case.text_bytes / seconds / 1e6:.2f}"


def cut_corpus(corpus: Path, path: Path, text_bytes: int) -> int:
    """Write the first lines of a .jsonl corpus to `path`, up to a size of text.

    Returns:
        The bytes of text written: `text_bytes` or a little more.
    """
    held = 0
    with open(corpus, encoding="utf-8") as lines, open(path, "w", encoding="utf-8") as file:
        for line in lines:
            if held >= text_bytes:
                break
            file.write(line)
            held += len(json.loads(line)["text"].encode())
    return held


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder; files that vanish meanwhile count 0."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total
