"""The measurements of `seeking.py` in a separate process; prints JSON.

python -m benchmarks.seeking_probe seek --corpus FOLDER
python -m benchmarks.seeking_probe replay --corpus FOLDER
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.delivery import memory_bytes
from megapt.config import DataConfig
from megapt.data import Corpus, WindowStream, open_stream

STEP = 1_000_000
GLOBAL_BATCH = 1_024
WINDOW = 2_048
FIRST = STEP * GLOBAL_BATCH
REPLAY_SECONDS = 3.0


def stream_of(folder: Path) -> WindowStream:
    """Open a corpus with the loader's defaults."""
    data = DataConfig(corpus=str(folder), window=WINDOW)
    stream = open_stream(Corpus(folder), "train", data, seed=0)
    assert isinstance(stream, WindowStream)  # of one corpus
    return stream


def memory() -> dict[str, float]:
    """Return the bytes of this process: resident, peak resident, and not backed by a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    resident, most = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return {"resident": resident, "most": most, "unbacked": memory_bytes()}


class Stages:
    """Seconds and memory of successive stages; the time of imports is not counted."""

    def __init__(self) -> None:
        self.found = {"imports": {"seconds": 0.0, **memory()}}
        self._before = time.perf_counter()

    def end(self, stage: str) -> None:
        """Record the seconds since the previous stage, and the memory."""
        seconds = time.perf_counter() - self._before
        self.found[stage] = {"seconds": seconds, **memory()}
        self._before = time.perf_counter()


def seek(folder: Path) -> dict[str, Any]:
    """Open the corpus and seek to the step; read a window there if there are shards."""
    stages = Stages()
    stream = stream_of(folder)
    stages.end("open")
    stream.order.locate(FIRST)
    stages.end("first window of the batch")
    for number in range(FIRST, FIRST + GLOBAL_BATCH):
        stream.order.locate(number)
    stages.end(f"all {GLOBAL_BATCH:,}")
    if has_shards(stream, folder):
        stream.text([FIRST])
        stages.end("read the first window")
    return {"stages": stages.found, **size(stream)}


def per_second(take: Callable[[int], object]) -> float:
    """Return the windows per second that `take` handles, starting from the first one."""
    began, number = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < REPLAY_SECONDS:
        take(number)
        number += 1
    return number / passed


def replay(folder: Path) -> dict[str, Any]:
    """Iterate over the windows from the first one, and read them if there are shards."""
    stream = stream_of(folder)
    located = per_second(stream.order.locate)
    found: dict[str, Any] = {
        "located_per_second": located,
        "locating_hours": FIRST / located / 3600,
    }
    if has_shards(stream, folder):
        rate = per_second(lambda number: stream.text([number]))
        found |= {"read_per_second": rate * WINDOW, "reading_hours": FIRST / rate / 3600}
    return found


def has_shards(stream: WindowStream, folder: Path) -> bool:
    """Return whether the shards of the corpus exist."""
    return (folder / stream.split.info.shards[0].file).exists()


def size(stream: WindowStream) -> dict[str, int]:
    """Return the numbers of tokens and shards."""
    return {"tokens": stream.order.tokens, "shards": len(stream.split.info.shards)}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    modes = {"seek": seek, "replay": replay}
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    print(json.dumps(modes[options.mode](options.corpus)))


if __name__ == "__main__":
    main()
