"""Seconds of training that a checkpoint costs, and seconds until a run resumes from one.

    python -m benchmarks.checkpoints --corpus runs/demo/corpus

README.md in this folder describes what is measured.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import folder_bytes, header, print_header, run_ranks, spread, table
from megapt.config import Origins, RunConfig

WORLD = 2
SIZES = ("256x4", "512x8")
STAGES = (0, 2, 3)
RESUMED = 2  # Updates after which a resumed run ends.

Times = dict[str, Any]


def run_config(size: str, stage: int, output: Path, options: argparse.Namespace) -> RunConfig:
    """Return a run that saves every `options.every` updates."""
    width, layers = map(int, size.split("x"))
    model = {
        "num_layers": layers,
        "hidden_size": width,
        "num_heads": width // 64,
        "intermediate_size": 4 * width,
    }
    return RunConfig.model_validate(
        {
            "output": str(output),
            "data": {"corpus": str(options.corpus), "window": options.window},
            "objective": {"name": "arlm"},
            "model": model,
            "training": {
                "budget": {"amount": 1e12},
                "global_batch_size": 2 * WORLD,
                "micro_batch_size": 2,
                "validate_every": 0,
                "validation_windows": 1,
            },
            "parallel": {"zero_stage": stage},
            "checkpoint": {"every": options.every, "async_save": options.asynchronous},
        }
    )


def be_rank(file: Path, updates: int) -> None:
    """Train as the rank that the environment names; exit after `updates` updates.

    The main rank prints the times after its updates, and the seconds of finding (and verifying)
    and of loading a checkpoint.
    """
    from megapt.checkpoint import Checkpoints
    from megapt.distributed.engine import Engine
    from megapt.distributed.start import start_ranks
    from megapt.training.prepared import prepare
    from megapt.training.trainer import Trainer

    moments: list[float] = []
    seconds = {"newest": 0.0, "load": 0.0}
    step = Engine.step

    def timed(name: str) -> None:
        method = getattr(Checkpoints, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = method(*args, **kwargs)
            seconds[name] += time.perf_counter() - began
            return result

        setattr(Checkpoints, name, call)

    def stamped(engine: Engine, *args: Any, **kwargs: Any) -> Any:
        update = step(engine, *args, **kwargs)
        moments.append(time.perf_counter())
        if len(moments) == updates:
            if ranks.main:
                print(json.dumps({"moments": moments, **seconds}), flush=True)
            ranks.barrier()
            os._exit(0)  # As after a kill: nothing more is saved.
        return update

    timed("newest")
    timed("load")
    Engine.step = stamped  # type: ignore[method-assign]
    ranks = start_ranks()
    config = RunConfig.model_validate_json(file.read_text())
    Trainer(prepare(config, ranks, Origins())).train()


def train(config: RunConfig, updates: int, world: int, folder: Path) -> Times:
    """Train on `world` ranks, one thread each."""
    file = folder / "config.json"
    file.write_text(config.model_dump_json())
    command = [sys.executable, "-m", "benchmarks.checkpoints", "--rank", str(file)]
    printed, *_ = run_ranks([*command, "--updates", str(updates)], world)
    found: Times = json.loads(printed.splitlines()[-1])
    return found


def between(moments: list[float]) -> list[float]:
    """Return the seconds from each time to the next."""
    return [after - before for before, after in itertools.pairwise(moments)]


def lost(moments: list[float], every: int) -> tuple[list[float], list[float]]:
    """Return the seconds beyond those of usual updates, for each save.

    Args:
        moments: times after each update; the first save follows update number `every`.
        every: updates between two saves.

    Returns:
        The extra seconds of the interval that contains the save, and those of all intervals until
        the next save.
    """
    intervals = between(moments)
    usual = statistics.median(intervals[1 : every - 1])
    standing, whole = [], []
    for first in range(every - 1, len(intervals) - every + 2, every):
        beyond = [interval - usual for interval in intervals[first : first + every]]
        standing.append(beyond[0])
        whole.append(sum(beyond))
    return standing, whole


def measure(size: str, stage: int, options: argparse.Namespace) -> list[Times]:
    """Save synchronously and asynchronously; resume on the same ranks, and on one."""
    found = []
    for asynchronous in (False, True):
        options.asynchronous = asynchronous
        case = {"size": size, "stage": stage, "asynchronous": asynchronous}
        print(json.dumps(case), file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=options.work) as name:
            folder = Path(name)
            config = run_config(size, stage, folder / "run", options)
            updates = options.every * (options.saves + 1)
            times = train(config, updates, WORLD, folder)
            checkpoints = folder / "run" / "checkpoints"
            kept = sum(1 for path in checkpoints.iterdir() if path.is_dir())
            case["bytes"] = folder_bytes(checkpoints) / max(kept, 1)
            case["standing"], case["lost"] = lost(times["moments"], options.every)
            case["update"] = statistics.median(between(times["moments"]))
            if not asynchronous:
                for title, world in (("same", WORLD), ("converted", 1)):
                    again = train(config, RESUMED, world, folder)
                    case[title] = {key: again[key] for key in ("newest", "load")}
            found.append(case)
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--work", type=Path, help="folder on the disk that is to be measured")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="WIDTHxLAYERS")
    parser.add_argument("--stages", nargs="+", type=int, default=list(STAGES))
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--every", type=int, default=6, help="updates between two checkpoints")
    parser.add_argument("--saves", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--rank", type=Path, help="be a rank of this run")
    parser.add_argument("--updates", type=int, help="of the rank")
    options = parser.parse_args()
    if options.rank:
        be_rank(options.rank, options.updates)
        return
    if options.corpus is None:
        parser.error("--corpus is needed")
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    entries = header(("torch", "deepspeed"))
    print_header(entries)
    found = [
        case
        for size in options.sizes
        for stage in options.stages
        for case in measure(size, stage, options)
    ]
    print(
        f"{WORLD} ranks of one thread, {options.saves} saves, one every {options.every} updates\n"
    )
    rows = [
        [
            case["size"],
            str(case["stage"]),
            "asynchronous" if case["asynchronous"] else "synchronous",
            f"{case['bytes'] / 2**20:.0f}",
            f"{case['update']:.2f}",
            spread(case["standing"]),
            spread(case["lost"]),
        ]
        for case in found
    ]
    columns = ["width x layers", "ZeRO", "saving", "MiB", "s/update", "stall, s"]
    print(table([*columns, "lost in total, s"], rows))
    rows = [
        [
            case["size"],
            str(case["stage"]),
            *(f"{case[way][part]:.2f}" for way in ("same", "converted") for part in case[way]),
        ]
        for case in found
        if "same" in case
    ]
    columns = ["width x layers", "ZeRO", f"on {WORLD} ranks: finding, s", "loading, s"]
    print(table([*columns, "on 1 rank: finding, s", "loading, s"], rows), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"header": entries, "cases": found}, indent=1))


if __name__ == "__main__":
    main()
