"""Save at one ZeRO stage on some ranks, resume at another on others: do the losses go on?

    python -m benchmarks.resume_matrix

Every pair of (stage, ranks) of `--stages` and `--ranks`, each way. One tiny run (BERT, dropout,
weight decay, global batch 8, fp32) is trained without a break; for every (stage, ranks) it
is stopped by SIGTERM after step 3, and resumed from there in every other. Printed is the largest
relative difference of a training loss or held-out score from the unbroken run, after the resume.
Exit code 1 if one is above `--tolerance`. The ranks are forked from a server, as in the tests.
"""

import argparse
import itertools
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import header, print_header, table
from megapt.config import RunConfig
from tests.corpora import write_corpus
from tests.ranks import run_ranks
from tests.training.runs import records_of, run_config, train, train_with_signal

STOP = 3

Layout = tuple[int, int]
"""ZeRO stage, ranks."""


def configure(corpus: Path, output: Path, layout: Layout) -> RunConfig:
    """The run, at this ZeRO stage."""
    stage, _ = layout
    return run_config(
        corpus,
        output,
        objective={"name": "bert"},
        model={"dropout": 0.1},
        parallel={"zero_stage": stage},
        # Dropout belongs to the micro-batch, whose size is that of the largest job.
        training={"micro_batch": 2},
    )


def difference(found: RunConfig, expected: RunConfig) -> float:
    """The largest relative difference of a loss or score after the stop."""
    differences: list[float] = []
    for mine, theirs in zip(records_of(found), records_of(expected), strict=True):
        assert (mine["split"], mine["step"]) == (theirs["split"], theirs["step"])
        if mine["step"] > STOP:
            differences.append(abs(mine["loss"] - theirs["loss"]) / abs(theirs["loss"]))
    return max(differences)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    layouts = list(itertools.product(arguments.stages, arguments.ranks))
    names = [f"{stage} × {ranks}" for stage, ranks in layouts]
    began = time.monotonic()
    worst = 0.0
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        corpus = write_corpus(folder)
        whole = configure(corpus, folder / "whole", (0, 1))
        run_ranks(1, train, whole)
        for source, name in zip(layouts, names, strict=True):
            stopped = configure(corpus, folder / "stopped", source)
            run_ranks(source[1], train_with_signal, stopped, signal.SIGTERM, STOP, timeout=300)
            row = [f"**{name}**"]
            for target in layouts:
                resumed = configure(corpus, folder / "resumed", target)
                shutil.copytree(stopped.output, resumed.output)
                run_ranks(target[1], train, resumed, timeout=300)
                found = difference(resumed, whole)
                worst = max(worst, found)
                row.append(f"{found:.0e}")
                shutil.rmtree(resumed.output)
            rows.append(row)
            shutil.rmtree(stopped.output)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print_header(header(("torch", "deepspeed")))
    print(table(["saved at stage × ranks, resumed at", *names], rows))
    pairs = len(layouts) ** 2
    print(f"{pairs} pairs in {time.monotonic() - began:.0f} s; largest difference {worst:.1e}")
    sys.exit(worst > arguments.tolerance)


if __name__ == "__main__":
    main()
