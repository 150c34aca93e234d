"""Training speed of megapt, of a bare loop, and of Hugging Face's `Trainer`.

    python -m benchmarks.training --corpus runs/demo/corpus

README.md in this folder describes what is compared. On a machine with CUDA it measures the GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import header, interleave, print_header, run, spread, table
from benchmarks.turns import Turn, shape_options
from data_prep.manifest import Manifest
from data_prep.shards import open_shards, read_lengths
from megapt.data import Corpus

LIBRARIES = ("torch", "deepspeed")
PEER_LIBRARIES = ("torch", "transformers", "accelerate")
SPECIAL = {"size", "pad", "unk", "cls", "sep", "mask"}
PEER_TOKENS = 4_000_000  # Largest number.
HERE = ("megapt", "bare")
CASES = {
    "arlm": ("megapt", "bare", "plain", "hf"),
    "mlm": ("megapt", "bare", "plain", "hf", "hf-by-length"),
}
AIMS = {
    ("arlm", "bare"): "0.97",
    ("arlm", "plain"): "1.00",
    ("mlm", "bare"): "0.97",
    ("mlm", "hf"): "1.30",
    ("mlm", "hf-by-length"): "1.30",
}
"""Smallest speed of megapt relative to a case."""


def lay_flat(corpus: Path, folder: Path) -> None:
    """Write the data of the peers: tokens end to end, lengths of documents, special tokens.

    From a large corpus only every n-th document is written, because Hugging Face's rows are lists
    in memory.
    """
    split = Manifest.load(corpus).splits["train"]
    shards = open_shards(corpus, split)
    blocks = [shard.block(number).tokens for shard in shards for number in range(len(shard))]
    tokens, lengths = np.concatenate(blocks), read_lengths(corpus, split)
    ends = lengths.cumsum(dtype=np.int64)
    kept = slice(None, None, 1 + len(tokens) // PEER_TOKENS)
    documents = [tokens[end - n : end] for end, n in zip(ends[kept], lengths[kept], strict=True)]
    np.save(folder / "tokens.npy", np.concatenate(documents))
    np.save(folder / "lengths.npy", lengths[kept])
    special = Corpus(str(corpus)).vocabulary.model_dump(include=SPECIAL)
    (folder / "special.json").write_text(json.dumps(special))


class Loop:
    """A training loop in a separate process, which runs only in its turns.

    Args:
        command: the command that starts it.
        threads: number of threads of torch.
        log: file for its output.
    """

    def __init__(self, command: list[str], threads: int, log: Path) -> None:
        self._command, self._log = command, log
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=file, text=True, env=environment
            )
        self._answer()

    def _answer(self) -> Turn:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self._command)}\nfailed:\n{self._log.read_text()[-2000:]}")
        return Turn(**json.loads(line))

    def turn(self, seconds: float) -> Turn:
        """Let it run for `seconds` seconds, to the end of an update."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def started(
    options: argparse.Namespace, objective: str, cases: list[str], flat: Path
) -> Iterator[Mapping[str, Loop]]:
    """Start all loops of an objective, each until after its first update; each has a log file."""
    shape = [f"--{name}={getattr(options, name)}" for name in ("layers", "hidden", "heads")]
    shape += [f"--{name}={getattr(options, name)}" for name in ("window", "batch", "precision")]
    shape += [f"--attention={options.attention}", f"--objective={objective}"]
    loops: dict[str, Loop] = {}
    with ExitStack() as stack:
        for case in cases:
            module = "training_here" if case in HERE else "training_peers"
            python = sys.executable if case in HERE else options.peer_python
            command = [python, "-m", f"benchmarks.{module}", case, *shape]
            command += ["--data", str(options.corpus), "--flat", str(flat)]
            loops[case] = Loop(command, options.threads, flat / f"{objective}-{case}.log")
            stack.callback(loops[case].close)
        yield loops


def peer_versions(python: str) -> dict[str, str]:
    """Return the versions of the peers' environment."""
    script = "import json, sys; from benchmarks.common import header; "
    script += "print(json.dumps(header(sys.argv[1:])))"
    found = json.loads(run([python, "-c", script, *PEER_LIBRARIES]).output)
    return {f"peers' {name}": found[name] for name in PEER_LIBRARIES}


def row(objective: str, case: str, samples: Mapping[str, list[Turn]]) -> list[str]:
    """Return a row of the table; ratios are of two successive turns."""
    turns = samples[case]
    cells = [
        case,
        spread([turn.tokens / turn.seconds for turn in turns], 0),
        f"{statistics.mean(turn.tokens / turn.updates for turn in turns):.0f}",
        spread([1000 * turn.seconds / turn.updates for turn in turns], 0),
        spread([1000 * turn.cpu_seconds / turn.updates for turn in turns], 0),
    ]
    if case == "megapt" or "megapt" not in samples:
        return [*cells, "", ""]
    ratios = [
        (ours.tokens / ours.seconds) / (theirs.tokens / theirs.seconds)
        for ours, theirs in zip(samples["megapt"], turns, strict=True)
    ]
    return [*cells, spread(ratios, 3), AIMS.get((objective, case), "")]


def compare(options: argparse.Namespace, objective: str, flat: Path) -> dict[str, Any]:
    """Run all loops of an objective in turn, print the table, and return all figures."""
    cases = [case for case in CASES[objective] if case in options.cases]
    with started(options, objective, cases, flat) as loops:
        for loop in loops.values():  # Warm-up.
            loop.turn(options.seconds)
        turns = {case: partial(loop.turn, options.seconds) for case, loop in loops.items()}
        samples = interleave(turns, options.repeat)
    print(f"\n### {objective}\n")
    columns = ["case", "tokens of text/s", "tokens/update", "ms/update", "CPU ms/update"]
    rows = [row(objective, case, samples) for case in samples]
    print(table([*columns, "speed of megapt relative to it", "aim"], rows), flush=True)
    return {case: [turn._asdict() for turn in found] for case, found in samples.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="of documents of real lengths")
    parser.add_argument("--objectives", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--cases", nargs="+", choices=CASES["mlm"], default=list(CASES["mlm"]))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    threads = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=threads, help="of each loop")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="has transformers, accelerate"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    shape_options(parser)
    options = parser.parse_args()
    entries = header(LIBRARIES) | peer_versions(options.peer_python)
    if torch.cuda.is_available():
        entries["GPU"] = torch.cuda.get_device_name()
    print_header(entries)
    print(
        f"{options.layers} layers of width {options.hidden}, {options.batch} x {options.window} "
        f"tokens an update, {options.precision}, {options.threads} threads, {options.repeat} turns "
        f"of {options.seconds:.0f} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        lay_flat(options.corpus, Path(folder))
        found = {name: compare(options, name, Path(folder)) for name in options.objectives}
    if options.json:
        options.json.write_text(json.dumps({"header": entries, **found}, indent=1))


if __name__ == "__main__":
    main()
