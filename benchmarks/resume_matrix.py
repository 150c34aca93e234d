"""Save at one ZeRO stage on some ranks, resume at other stages and ranks: are the losses equal?

    python -m benchmarks.resume_matrix --corpus runs/demo/corpus

The pairs are all ordered pairs of (stage, ranks) of `--stages` and `--ranks`. A tiny run (BERT,
dropout, weight decay, global batch 8, fp32) is trained without interruption. For every
(stage, ranks) it is also stopped by SIGTERM after step 3, and resumed from there at every
(stage, ranks). The table shows the largest relative difference of a training or validation loss
from the uninterrupted run after the resume. The exit code is 1 if one is above `--tolerance`. A job
trains all runs with its number of ranks in turn.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import header, print_header, run_ranks, table
from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.errors import RunInterrupted
from megapt.exits import leave, run_and_report
from megapt.monitoring.metrics import read_metrics

STOP = 3

_RUN: dict[str, Any] = {
    "seed": 3,
    "objective": {"name": "bert"},
    "model": {
        "num_layers": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 24,
        "dropout": 0.1,
    },
    # A large epsilon: Adam divides by the size of the gradient, and a small epsilon would turn
    # rounding errors of gradients near zero into full steps.
    "optimizer": {"lr": 1e-2, "eps": 1e-4},
    "schedule": {"name": "linear", "warmup_ratio": 0.2},
    "training": {
        "budget": {"axis": "raw_tokens", "amount": 5000.0},
        "global_batch_size": 8,
        # Dropout depends on the micro-batch, whose size is that of the largest job.
        "micro_batch_size": 2,
        "validate_every": 3,
        "validation_windows": 8,
        "log_every": 1,
    },
    "checkpoint": {"every": 0},
}

Layout = tuple[int, int]
"""ZeRO stage, ranks."""


def name_of(layout: Layout) -> str:
    """Return the name of a layout in the table."""
    stage, ranks = layout
    return f"{stage} × {ranks}"


def configure(corpus: Path, output: Path, layout: Layout) -> RunConfig:
    """Return the run at the ZeRO stage of the layout."""
    place = {"output": str(output), "data": {"corpus": str(corpus), "window": 128}}
    return RunConfig.model_validate({**_RUN, **place, "parallel": {"zero_stage": layout[0]}})


def be_rank(file: Path) -> None:
    """Train the runs of a file, as the rank that the environment names.

    Args:
        file: JSON list of configurations, each with whether it is stopped after step `STOP`.
    """
    from megapt.distributed.engine import Engine
    from megapt.distributed.start import start_ranks
    from megapt.training.prepared import prepare
    from megapt.training.trainer import Trainer

    ranks, step, updates = start_ranks(), Engine.step, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal updates
        updates += 1
        if stopped and updates == STOP and ranks.rank == ranks.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    Engine.step = counted  # type: ignore[method-assign]
    for values, stopped in json.loads(file.read_text()):
        updates = 0
        trainer = Trainer(prepare(RunConfig.model_validate(values), ranks, Origins()))
        try:
            trainer.train()
        except RunInterrupted:
            if not stopped:
                raise


def train(folder: Path, world: int, runs: Iterable[RunConfig], *, stopped: bool = False) -> None:
    """Train runs in turn on `world` ranks."""
    file = folder / "runs.json"
    file.write_text(json.dumps([(run.model_dump(mode="json"), stopped) for run in runs]))
    run_ranks([sys.executable, "-m", "benchmarks.resume_matrix", "--rank", str(file)], world)


def records_of(config: RunConfig) -> list[dict[str, Any]]:
    """Return the records of training and validation."""
    records = read_metrics(RunFolder(config.output).metrics_file)
    return [record for record in records if record["split"] in ("train", "valid")]


def difference(found: RunConfig, expected: RunConfig) -> float:
    """Return the largest relative difference of a loss after the stop."""
    differences: list[float] = []
    for mine, theirs in zip(records_of(found), records_of(expected), strict=True):
        assert (mine["split"], mine["step"]) == (theirs["split"], theirs["step"])
        if mine["step"] > STOP:
            differences.append(abs(mine["loss"] - theirs["loss"]) / abs(theirs["loss"]))
    return max(differences)


def measure(
    corpus: Path, folder: Path, layouts: Sequence[Layout]
) -> dict[tuple[Layout, Layout], float]:
    """Train, stop and resume the run.

    Returns:
        (Layout of the save, layout of the resume) -> largest relative difference.
    """
    whole = configure(corpus, folder / "whole", (0, 1))
    saved = {layout: configure(corpus, folder / name_of(layout), layout) for layout in layouts}
    resumed = {
        (source, target): configure(
            corpus, folder / f"{name_of(source)}, {name_of(target)}", target
        )
        for source, target in itertools.product(layouts, repeat=2)
    }
    train(folder, 1, [whole])
    worlds = sorted({ranks for _, ranks in layouts})
    for world in worlds:
        runs = [config for (_, ranks), config in saved.items() if ranks == world]
        train(folder, world, runs, stopped=True)
    for (source, _), config in resumed.items():
        shutil.copytree(saved[source].output, config.output)
    for world in worlds:
        train(folder, world, [run for (_, (_, ranks)), run in resumed.items() if ranks == world])
    return {pair: difference(config, whole) for pair, config in resumed.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        leave(run_and_report(lambda: be_rank(options.rank)))
    if options.corpus is None:
        parser.error("--corpus is missing")
    layouts = list(itertools.product(options.stages, options.ranks))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.corpus.resolve(), Path(folder), layouts)
    worst = max(found.values())
    rows = [
        [f"**{name_of(source)}**", *(f"{found[source, target]:.0e}" for target in layouts)]
        for source in layouts
    ]
    print_header(header(("torch", "deepspeed")))
    print(table(["saved at stage × ranks, resumed at", *map(name_of, layouts)], rows))
    seconds = time.monotonic() - began
    print(f"{len(found)} pairs in {seconds:.0f} s; largest difference {worst:.1e}")
    sys.exit(worst > options.tolerance)


if __name__ == "__main__":
    main()
