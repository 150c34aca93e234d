"""Model-FLOPs utilization of 125M, 350M and 1.3B parameters on one GPU, in bfloat16.

    python -m benchmarks.gpu

README.md in this folder describes what is measured. Nothing is read or downloaded.
"""

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

import megapt.model.linear_cross_entropy as head
from benchmarks.common import header, print_header, spread, table
from benchmarks.utilization import Step, product_rate, run_config, timed
from megapt.distributed.start import start_ranks
from megapt.monitoring.peaks import device_peak

IN_ROWS = ("flex",)
"""Backends that are faster with packed rows: their shapes stay those of the compilation."""
SIZES = {"125M": "768x12", "350M": "1024x24", "1.3B": "2048x24"}
MICRO_BATCHES = {"125M": (16, 32, 64), "350M": (8, 16, 32), "1.3B": (4, 8, 16)}
CHUNKS = (2**24, 2**26)  # Logits that the head computes at once.
REFERENCES = """
Published, H100, 2,048 positions, bf16: llm-foundry 760M 34.9 % (8 GPUs), 1B 40.6 %, 3B 42.4 %,
7B 45.7 % (128 GPUs; scripts/train/benchmarking/README.md), by the formula of the last column.
"""
WARM_UP = 4  # Updates; the first ones compile.
FULL = "out of memory"

Found = dict[str, Any]


def foundry_flops(step: Step) -> float:
    """Return the FLOPs of an update as llm-foundry counts them.

    6 FLOPs per parameter (with embeddings) and token, and attention as if it were not causal.
    """
    model, positions = step.config.model, step.config.data.window
    pairs = step.counts.positions * positions
    return 6.0 * (
        step.parameters * step.counts.positions + 2 * model.num_layers * model.hidden_size * pairs
    )


def measure(case: Found, options: argparse.Namespace) -> Found:
    """Train in this process; the case gives a size, an objective, and computation settings."""
    ranks = start_ranks()
    width, layers = map(int, SIZES.get(case["size"], case["size"]).split("x"))
    options.batch = case["micro_batch_size"]
    training = {
        "attention": case["attention"],
        "compile": case["compile"],
        "row_length": options.positions if case["attention"] in IN_ROWS else 0,
    }
    config = run_config(case["objective"], width, layers, options, **training)
    # The chunk size is not a setting of a run; the projection looks the function up by name.
    chunked = partial(head.linear_cross_entropy, chunk_logits=case["chunk"])
    head.linear_cross_entropy = chunked  # type: ignore[assignment]
    try:
        step = Step(config, ranks, options.vocabulary)
        timed(step, WARM_UP)
        seconds = [timed(step, options.updates) for _ in range(options.repeat)]
    except torch.cuda.OutOfMemoryError:
        return {**case, "failed": FULL}
    cuda = ranks.device.type == "cuda"
    return {
        **case,
        "parameters": step.parameters,
        "tokens": step.counts.raw_tokens,
        "seconds": seconds,
        "flops": step.flops,
        "foundry_flops": foundry_flops(step),
        "bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "data_sheet": device_peak(ranks.device, options.precision),
        "products": product_rate(ranks.device, options.precision, options.product),
    }


def apart(case: Found, options: argparse.Namespace) -> Found:
    """Call `measure` in a separate process; if it fails, record the failure and continue."""
    print(json.dumps(case), file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--case", json.dumps(case)]
    for name in ("positions", "vocabulary", "precision", "product", "updates", "repeat"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr, flush=True)
        return {**case, "failed": f"exit code {done.returncode}"}
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def rate(found: Found) -> float:
    """Return tokens per second; 0 for a failed case."""
    return 0.0 if "failed" in found else found["tokens"] / statistics.median(found["seconds"])


def explore(size: str, objective: str, options: argparse.Namespace) -> list[Found]:
    """Find the best micro-batch, then try larger chunks, other kernels, and no compilation."""
    first, *others = options.attention
    case: Found = {"size": size, "objective": objective, "attention": first, "compile": True}
    case["chunk"] = CHUNKS[0]
    found = []
    for micro_batch_size in options.micro_batches or MICRO_BATCHES[size]:
        found.append(apart({**case, "micro_batch_size": micro_batch_size}, options))
        if found[-1].get("failed") == FULL:
            break
    case["micro_batch_size"] = max(found, key=rate)["micro_batch_size"]
    changes: list[Found] = [{"chunk": chunk} for chunk in CHUNKS[1:]]
    changes += [{"attention": attention} for attention in others]
    changes += [{"compile": False}]
    return [*found, *(apart({**case, **change}, options) for change in changes)]


def row(found: Found) -> list[str]:
    """Return a row of the table."""
    cells = [found["size"], found["objective"], found["attention"]]
    cells += ["yes" if found["compile"] else "no", str(found["micro_batch_size"])]
    cells += [f"2^{found['chunk'].bit_length() - 1}"]
    if "failed" in found:
        return [*cells, found["failed"], *[""] * 5]
    cells += [spread([1000 * seconds for seconds in found["seconds"]], 1), f"{rate(found):,.0f}"]

    def share(flops: float, peak: float | None) -> str:
        each = [flops / seconds for seconds in found["seconds"]]
        return spread([100 * one / peak for one in each], 1) if peak else "peak unknown"

    cells += [share(found["flops"], found["data_sheet"]), share(found["flops"], found["products"])]
    # The formula counts every position as a target, which is wrong for mlm.
    foundry = share(found["foundry_flops"], found["data_sheet"])
    return [
        *cells,
        foundry if found["objective"] == "arlm" else "",
        f"{found['bytes'] / 2**30:.1f}",
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    cuda = torch.cuda.is_available()
    kernels = ["varlen", "flex"] if cuda else ["grouped"]
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="names, or WIDTHxLAYERS")
    parser.add_argument("--objectives", nargs="+", default=["arlm", "mlm"])
    parser.add_argument("--attention", nargs="+", default=kernels, help="the first is swept")
    parser.add_argument("--micro-batches", nargs="+", type=int, help="instead of those of a size")
    parser.add_argument("--positions", type=int, default=2048, help="of an example")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--product", type=int, default=8192, help="width of the square matrices")
    parser.add_argument("--updates", type=int, default=10, help="of a repetition")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--case", type=json.loads, help="one case in this process; prints JSON")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options)))
        return
    entries = header(("torch", "deepspeed", "triton"))
    if cuda:
        entries["GPU"] = torch.cuda.get_device_name()
    print_header(entries)
    found = [
        one
        for size in options.sizes
        for objective in options.objectives
        for one in explore(size, objective, options)
    ]
    columns = ["model", "objective", "attention", "compiled", "micro-batch", "chunk of the head"]
    columns += ["ms/update", "tokens/s", "MFU, %", "of measured products, %"]
    print(f"{options.positions} positions an example, {options.precision}\n")
    print(table([*columns, "by llm-foundry's formula, %", "GiB"], map(row, found)) + REFERENCES)
    if options.json:
        options.json.write_text(json.dumps({"header": entries, "cases": found}, indent=1))


if __name__ == "__main__":
    main()
