"""Model-FLOPs utilization against the matrix products of the same machine, by width and depth.

    python -m benchmarks.utilization

README.md in this folder describes what is measured. On a machine with CUDA it measures the GPU.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import header, print_header, spread, table
from data_prep.vocabulary import Vocabulary
from megapt.config import Origins, RunConfig
from megapt.data import Batch, CounterRng, Counts, Piece, Rows, Window, collate
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import start_ranks
from megapt.model import training_flops
from megapt.planning.text import MadeUpText
from megapt.training.make_engine import make_engine
from megapt.training.parts import find_parts

TASKS = ("256x4", "256x12", "512x4", "512x8", "1024x2", "1024x4", "2048x1")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SPECIAL = 16  # Smaller ids are special tokens.
PRODUCTS = 5  # The fastest one counts.


def head_width(width: int) -> int:
    """Return the width of an attention head."""
    return min(width, 128 if width >= 2048 else 64)


def inner_width(width: int) -> int:
    """Return 8/3 of the width (the usual size for SwiGLU), rounded up to a multiple of 128."""
    return 128 * math.ceil(width * 8 / 3 / 128)


def run_config(
    objective: str, width: int, layers: int, options: argparse.Namespace, **training: Any
) -> RunConfig:
    """Return a run of the modern architecture; nothing is read or written."""
    model = {"num_layers": layers, "hidden_size": width, "num_heads": width // head_width(width)}
    settings = {
        "budget": {"amount": 1e12},
        "global_batch_size": options.batch,
        "micro_batch_size": options.batch,
        "precision": options.precision,
        **training,
    }
    return RunConfig.model_validate(
        {
            "output": "nowhere",
            "data": {"corpus": "nowhere", "window": options.positions},
            "model": {**model, "intermediate_size": inner_width(width)},
            "objective": {"name": objective},
            "training": settings,
        }
    )


def vocabulary(size: int) -> Vocabulary:
    """Return a vocabulary of `size` ids."""
    names = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
    ids = {name: number for number, name in enumerate(names)}
    reserved = list(range(SPECIAL))
    return Vocabulary(size=size, **ids, modes={}, infilling={}, sentinels=[], reserved=reserved)


def windows(positions: int, tokens: int, count: int, size: int) -> Iterator[Window]:
    """Yield windows of random tokens, each the beginning of one document."""
    rng = np.random.default_rng(0)
    for number in range(count):
        ids = rng.integers(SPECIAL, size, tokens).astype(np.uint16)
        marks = np.ones(tokens, dtype=np.bool_)
        piece = Piece(ids, marks, marks, number, -1, starts_document=True, ends_document=False)
        yield Window(0, number, (piece,))


class Step:
    """Updates of one model by the real engine, on batches that are on the device.

    Args:
        config: configuration of the run.
        ranks: this process alone.
        size: size of the vocabulary.
        batches: number of batches, which are used in turn.
    """

    def __init__(self, config: RunConfig, ranks: Ranks, size: int, batches: int = 2) -> None:
        self.config, self.size = config, size
        positions, rows = config.data.window, config.training.global_batch_size
        special = vocabulary(size)
        parts = find_parts(config, ranks, Origins(), MadeUpText(special, [], 0, 0, 0, []))
        objective = parts.objective
        self.heads = objective.heads
        # With [BOS], or [CLS] and [SEP], an example has exactly this number of positions.
        tokens = positions if config.objective.name == "arlm" else positions - 2
        names = [head.name for head in self.heads]
        filled = Rows(positions, rows, open=1) if config.training.row_length else None
        made = []
        every = windows(positions, tokens, rows * batches, size)
        for _ in range(batches):
            examples = [
                example
                for window in itertools.islice(every, rows)
                for example in objective.examples(window, CounterRng(0, window.index))
            ]
            packed = collate(
                examples,
                pad=special.pad,
                heads=names,
                token_heads=names,
                raw_tokens=tokens * rows,
                rows=filled,
            )
            made.append(packed.widen().to(ranks.device))
        self._batches = itertools.cycle(made)
        self.counts: Counts = made[0].counts
        self.engine = make_engine(parts)
        self.parameters = self.engine.parameters

    def update(self) -> None:
        """Do one update."""
        batch: Batch = next(self._batches)
        factors = {head: 1 / asked.size for head, asked in batch.targets.items()}
        loss = self.engine(batch, factors).loss
        self.engine.backward(loss, last=True)
        if self.engine.step(self.config.optimizer.lr).applied:
            self.engine.update_average()

    @cached_property
    def flops(self) -> float:
        """Model FLOPs of an update; see `megapt.model.training_flops`."""
        return training_flops(self.config.model, self.heads, self.counts, self.size)


def settled() -> float:
    """Return the clock after the device has finished its queued work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def product_rate(device: torch.device, precision: str, width: int) -> float:
    """Return the FLOPs per second of the fastest of some products of square matrices."""
    a, b = (torch.randn(width, width, device=device, dtype=DTYPES[precision]) for _ in range(2))
    out, seconds = torch.mm(a, b), []
    for _ in range(PRODUCTS):
        began = settled()
        torch.mm(a, b, out=out)
        seconds.append(settled() - began)
    return 2 * width**3 / min(seconds)


def timed(step: Step, updates: int) -> float:
    """Return the mean seconds of an update."""
    began = settled()
    for _ in range(updates):
        step.update()
    return (settled() - began) / updates


def measure(objective: str, task: str, ranks: Ranks, options: argparse.Namespace) -> dict[str, Any]:
    """Measure products and updates in turn, so that drift affects both equally."""
    width, layers = map(int, task.split("x"))
    step = Step(run_config(objective, width, layers, options), ranks, options.vocabulary)
    timed(step, 1)
    peaks, seconds = [], []
    for _ in range(options.repeat):
        peaks.append(product_rate(ranks.device, options.precision, options.product))
        seconds.append(timed(step, 1))
    step.engine.close()
    shares = [step.flops / s / peak for s, peak in zip(seconds, peaks, strict=True)]
    return {
        "objective": objective,
        "task": task,
        "parameters": step.parameters,
        "flops": step.flops,
        "tokens": step.counts.raw_tokens,
        "seconds": seconds,
        "peaks": peaks,
        "utilization": shares,
    }


def row(found: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    rate = found["tokens"] / statistics.median(found["seconds"])
    return [
        found["objective"],
        found["task"],
        f"{found['parameters'] / 1e6:.1f}",
        f"{rate:,.0f}",
        spread([found["flops"] / s / 1e9 for s in found["seconds"]], 0),
        spread([peak / 1e9 for peak in found["peaks"]], 0),
        spread([100 * share for share in found["utilization"]], 1),
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="WIDTHxLAYERS")
    parser.add_argument("--objectives", nargs="+", default=["arlm", "mlm"])
    parser.add_argument("--positions", type=int, default=512, help="of an example")
    parser.add_argument("--batch", type=int, default=4, help="examples an update")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--product", type=int, default=2048, help="width of the square matrices")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    ranks = start_ranks()
    entries = header(("torch", "deepspeed"))
    entries["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        entries["GPU"] = torch.cuda.get_device_name()
    print_header(entries)
    print(
        f"{options.batch} x {options.positions} positions an update, vocabulary "
        f"{options.vocabulary:,}, {options.precision}, {options.repeat} repetitions; products of "
        f"{options.product} x {options.product}\n"
    )
    found = []
    for objective, task in itertools.product(options.objectives, options.tasks):
        found.append(measure(objective, task, ranks, options))
    columns = ["objective", "width x layers", "M parameters", "tokens/s", "model GFLOPS"]
    print(table([*columns, "products, GFLOPS", "utilization, %"], map(row, found)), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"header": entries, "tasks": found}, indent=1))


if __name__ == "__main__":
    main()
