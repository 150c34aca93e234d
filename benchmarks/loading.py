"""Speed of batches compared with other loaders; ratios are of medians of one run.

    python -m benchmarks.corpora --output bench
    python -m benchmarks.loading --input bench/english.jsonl --work bench/loading
    python -m benchmarks.loading --input bench/english.jsonl --work bench/loading --profile

README.md in this folder describes what each case measures, and what a batch is.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import (
    folder_bytes,
    header,
    interleave,
    print_header,
    run,
    spread,
    table,
)
from benchmarks.delivery import Delivered
from data_prep.manifest import Manifest
from data_prep.shards import open_shards, read_lengths

MEGAPT = ("text", "arlm", "mlm")
HERE = ("memmap", "nanogpt", "webdataset")
APART = ("mds", "litdata")  # May be in a separate environment.
LIBRARIES = ("torch", "numpy", "webdataset")
PEER_LIBRARIES = ("torch", "numpy", "mosaicml-streaming", "litdata")
AIMS = {("text", 0): 150, ("text", 1): 25, ("mlm", 0): 10}  # M tokens/s
PROFILED_TOKENS = 5_000_000


class Sample(NamedTuple):
    """The figures of one process, and the largest resident size of any of its processes."""

    delivered: Delivered
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Millions of tokens per second."""
        return self.delivered.tokens / self.delivered.seconds / 1e6


class Data:
    """The same tokens in the format of each case, made once.

    Args:
        text: a .jsonl file of the benchmark corpus.
        work: folder for everything that is written.
        pieces: size of the vocabulary.
        peer_python: an interpreter that has the peers.
    """

    def __init__(self, text: Path, work: Path, pieces: int, peer_python: str) -> None:
        self.work = work / str(pieces)
        self.peer_python = peer_python
        self.work.mkdir(parents=True, exist_ok=True)
        self.corpus = self._corpus(text, pieces)
        self.flat = self._flat()

    def _corpus(self, text: Path, pieces: int) -> Path:
        """Return a corpus with shards of 4 M tokens."""
        prep = [sys.executable, "-m", "data_prep.cli"]
        tokenizer, corpus = self.work / "tokenizer", self.work / "corpus"
        if not tokenizer.exists():
            command = [*prep, "tokenizer", "--input", str(text), "--output", str(tokenizer)]
            run([*command, "--vocab-size", str(pieces), "--sample-mb", "20"])
        if not corpus.exists():
            command = [*prep, "build", "--input", str(text), "--output", str(corpus)]
            command += ["--tokenizer", str(tokenizer / "tokenizer.model"), "--workers", "2"]
            run([*command, "--valid-fraction", "0.01", "--shard-tokens", str(1 << 22)])
        return corpus

    def _flat(self) -> Path:
        """Return a file of the training documents end to end, uint16; write their lengths too."""
        path = self.work / "flat" / "tokens.npy"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            split = Manifest.load(self.corpus).splits["train"]
            blocks = [
                shard.block(number).tokens
                for shard in open_shards(self.corpus, split)
                for number in range(len(shard))
            ]
            np.save(path.with_name("lengths.npy"), read_lengths(self.corpus, split))
            np.save(path, np.concatenate(blocks))
        return path

    @property
    def tokens(self) -> int:
        """Tokens of the training documents."""
        return len(np.load(self.flat, mmap_mode="r"))

    def of(self, case: str) -> Path:
        """Return the data of a case; each peer writes its own format."""
        if case in MEGAPT:
            return self.corpus
        if case in ("memmap", "nanogpt"):
            return self.flat
        folder = self.work / case
        if not folder.exists():
            partial_folder = folder.with_name(f"{case}.partial")
            command = [self.python(case), "-m", "benchmarks.loading_peers", "prepare", case]
            run([*command, "--tokens", str(self.flat), "--output", str(partial_folder)])
            shutil.move(partial_folder, folder)
        return folder

    def python(self, case: str) -> str:
        """Return the interpreter that runs a case."""
        return self.peer_python if case in APART else sys.executable

    def command(self, case: str, workers: int, tokens: int) -> list[str]:
        """Return the command of one run of a case."""
        module = "benchmarks.loading_megapt" if case in MEGAPT else "benchmarks.loading_peers"
        command = [self.python(case), "-m", module, case, "--data", str(self.of(case))]
        return [*command, "--workers", str(workers), "--tokens", str(tokens)]


def measure(command: list[str]) -> Sample:
    """Measure one process, with all cores of the machine."""
    finished = run([*command, "--started", str(time.monotonic())])
    said = json.loads(finished.output.splitlines()[-1])
    return Sample(Delivered(**said), finished.peak_bytes)


def compare(
    data: Data, cases: list[str], workers: list[int], tokens: int, repeat: int
) -> dict[str, Any]:
    """Interleave all cases with all numbers of workers, and print their figures."""
    names = {(case, n): f"{case}, {n}" for n in workers for case in cases}
    commands = {names[key]: data.command(*key, tokens) for key in names}
    samples = interleave(
        {name: partial(measure, command) for name, command in commands.items()}, repeat
    )
    print(f"\n### Batches\n\n{data.tokens / 1e6:.1f} M tokens, {repeat} repetitions\n")
    rows, rates = [], {}
    for key, name in names.items():
        found = samples[name]
        rates[key] = statistics.median(sample.rate for sample in found)
        rows.append(
            [
                name,
                spread([sample.rate for sample in found], 1),
                f"{AIMS[key]}" if key in AIMS else "",
                spread([sample.delivered.first_batch_seconds for sample in found]),
                f"{max(sample.peak_bytes for sample in found) / 2**20:.0f}",
                f"{max(sample.delivered.memory_bytes for sample in found) / 2**20:.0f}",
            ]
        )
    columns = ["case, workers", "M tokens/s", "aim", "first batch, s"]
    print(table([*columns, "largest process MiB", "memory MiB"], rows))
    print(_ratios(rates, cases, workers), flush=True)
    return {name: [_plain(sample) for sample in found] for name, found in samples.items()}


def _plain(sample: Sample) -> dict[str, float]:
    return {**sample.delivered._asdict(), "peak_bytes": sample.peak_bytes}


def _ratios(rates: dict[tuple[str, int], float], cases: list[str], workers: list[int]) -> str:
    """Return the speed of `text` relative to each peer, by number of workers."""
    peers = [case for case in cases if case not in MEGAPT]
    if "text" not in cases:
        return ""
    rows = [
        [peer, *(f"{rates['text', n] / rates[peer, n]:.2f}" for n in workers)] for peer in peers
    ]
    return table(["speed of text to", *(f"workers: {n}" for n in workers)], rows)


def sizes(data: Data, cases: list[str]) -> dict[str, int]:
    """Print and return the bytes on disk of the data of the cases."""
    found = {}
    for path in dict.fromkeys(map(data.of, cases)):
        found[path.name] = folder_bytes(path) if path.is_dir() else path.stat().st_size
    rows = [[name, f"{size / data.tokens:.2f}"] for name, size in found.items()]
    print("\n### Disk\n")
    print(table(["data", "bytes per token"], rows), flush=True)
    return found


def profile(data: Data, case: str) -> list[list[Any]]:
    """Print where the time of a case without workers goes."""
    finished = run([*data.command(case, 0, PROFILED_TOKENS), "--profile"])
    said = json.loads(finished.output.splitlines()[-1])
    rows = [[f"`{name}`", f"{calls:,}", f"{share:.1%}"] for name, calls, share in said["profile"]]
    rate = said["tokens"] / said["seconds"] / 1e6
    print(f"\n### Profile of {case}\n\n{said['tokens'] / 1e6:.1f} M tokens at {rate:.1f} M/s\n")
    print(table(["function", "calls", "share of the time, without callees"], rows), flush=True)
    found: list[list[Any]] = said["profile"]
    return found


def peer_versions(python: str) -> dict[str, str]:
    """Return the versions of the peers' environment."""
    script = "import json, sys; from benchmarks.common import header; "
    script += "print(json.dumps(header(sys.argv[1:])))"
    found = json.loads(run([python, "-c", script, *PEER_LIBRARIES]).output)
    return {f"peers' {name}": found[name] for name in ("Python", *PEER_LIBRARIES)}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", type=Path, required=True, help="english.jsonl of corpora.py")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    cases = (*MEGAPT, *HERE, *APART)
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=50_000_000, help="of each run, at most")
    parser.add_argument("--pieces", type=int, default=1024, help="of the vocabulary")
    parser.add_argument("--profile", action="store_true", help="only print where mlm's time goes")
    parser.add_argument("--peer-python", default=sys.executable, help=f"has {', '.join(APART)}")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    # One thread per process, so that only the number of workers differs.
    os.environ["OMP_NUM_THREADS"] = "1"
    entries = header(LIBRARIES)
    if set(options.cases) & set(APART) and not options.profile:
        entries |= peer_versions(options.peer_python)
    print_header(entries)
    data = Data(options.input, options.work, options.pieces, options.peer_python)
    found: dict[str, Any] = {}
    if options.profile:
        found["profile"] = profile(data, "mlm")
    else:
        found["disk"] = sizes(data, options.cases)
        found["batches"] = compare(
            data, options.cases, options.workers, options.tokens, options.repeat
        )
    if options.json:
        options.json.write_text(json.dumps({"header": entries, **found}, indent=1))


if __name__ == "__main__":
    main()
