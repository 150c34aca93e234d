"""Measurement of a case of `loading.py` in its own process: batches in, JSON out."""

import argparse
import contextlib
import cProfile
import itertools
import json
import os
import pstats
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.kill import descendants

ROWS = 8
WINDOW = 2049
WARM_UP = 16  # batches; more than all workers prefetch
PROFILED = 15  # functions


class Delivered(NamedTuple):
    """The figures of one process."""

    tokens: int
    """Text tokens in the batches after the warm-up."""
    seconds: float
    """Seconds in which they were delivered."""
    first_batch_seconds: float
    """Seconds from the start of the process to its first batch."""
    memory_bytes: int
    """Memory of this process and its workers at the end that no file backs, with each shared page
    counted once. It excludes mapped corpora and libraries."""


Case = Callable[[argparse.Namespace], Iterator[int]]
"""Yields the tokens of each batch as it becomes ready: int64 tensors in this process."""


def deliver(
    batches: Iterator[int],
    started: float,
    most: int,
    watch: contextlib.AbstractContextManager[object],
) -> Delivered:
    """Take batches until `most` tokens have been delivered, or the epoch ends.

    Args:
        batches: the tokens of each batch.
        started: `time.monotonic()`, which all processes share, at the start of this process.
        most: tokens after which to stop.
        watch: context that is active during the measurement.

    Raises:
        SystemExit: if the epoch ended before the measurement began.
    """
    next(batches)
    first_batch_seconds = time.monotonic() - started
    for _ in itertools.islice(batches, WARM_UP):
        pass
    tokens = 0
    with watch:
        began = time.perf_counter()
        for count in batches:
            tokens += count
            if tokens >= most:
                break
        seconds = time.perf_counter() - began
    if not tokens:
        raise SystemExit(f"an epoch has at most {WARM_UP + 1} batches: too few to measure")
    return Delivered(tokens, seconds, first_batch_seconds, memory_bytes())


def memory_bytes() -> int:
    """Return the memory of this process and its descendants that no file backs."""
    total = 0
    for process in (os.getpid(), *descendants(os.getpid())):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        shares = dict(line.split(":", 1) for line in lines[1:])
        total += sum(int(shares[kind].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem"))
    return total * 1024


def own_times(profile: cProfile.Profile) -> list[tuple[str, int, float]]:
    """Return the functions with the most time of their own: name, calls, share of all time."""
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    found = [
        (f"{Path(file).name}:{line} {name}" if line else name, calls, own / total)
        for (file, line, name), (_, calls, own, _, _) in stats.items()
    ]
    return sorted(found, key=lambda row: -row[2])[:PROFILED]


def main(description: str, cases: Mapping[str, Case]) -> None:
    """Run one case and print what it delivered as JSON."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("case", choices=cases)
    parser.add_argument("--data", type=Path, required=True, help="what the case reads")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=50_000_000)
    parser.add_argument("--started", type=float, default=time.monotonic())
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    profile = cProfile.Profile()
    watch = profile if options.profile else contextlib.nullcontext()
    batches = cases[options.case](options)
    found = deliver(batches, options.started, options.tokens, watch)._asdict()
    if options.profile:
        found["profile"] = own_times(profile)
    print(json.dumps(found), flush=True)
