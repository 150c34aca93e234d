"""Time and memory of the loss over the vocabulary, with all logits and in chunks.

    python -m benchmarks.loss_head

README.md in this folder describes what is measured. On a machine with CUDA it measures the GPU.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.common import header, interleave, print_header, run, spread, table
from megapt.model.linear_cross_entropy import linear_cross_entropy

PASSES = 3  # Timed passes, after one in which memory is measured.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Task(NamedTuple):
    """A batch whose targets are some of its positions."""

    states: Tensor
    """[positions, hidden]."""
    matrix: Tensor
    """[vocabulary, hidden]."""
    places: Tensor
    """Positions of the targets, int64 [targets]."""
    labels: Tensor
    """Labels of the targets, int64 [targets]."""


def all_positions(task: Task) -> Tensor:
    """Return the loss with logits everywhere; the labels of other positions are ignored."""
    labels = torch.full_like(task.states[:, 0], -100, dtype=torch.int64)
    labels[task.places] = task.labels
    return functional.cross_entropy(functional.linear(task.states, task.matrix).float(), labels)


def targets(task: Task) -> Tensor:
    """Return the loss with logits of the targets only."""
    logits = functional.linear(task.states[task.places], task.matrix)
    return functional.cross_entropy(logits.float(), task.labels)


def torch_chunks(task: Task) -> Tensor:
    """Return the loss of torch's function `linear_cross_entropy`, with its defaults."""
    return functional.linear_cross_entropy(
        task.states[task.places],
        task.matrix,
        task.labels,
        options=torch.nn.LinearCrossEntropyOptions(),
    )


def chunks(task: Task) -> Tensor:
    """Return the loss of megapt's function, which also computes the accuracy."""
    weights = torch.full_like(task.labels, 1 / len(task.labels), dtype=torch.float32)
    states = task.states[task.places]
    return linear_cross_entropy(states, task.matrix, None, task.labels, weights).loss


CASES: dict[str, Callable[[Task], Tensor]] = {
    "all logits, all positions": all_positions,
    "all logits, targets": targets,
    "torch, chunks": torch_chunks,
    "megapt, chunks": chunks,
}
OURS = "megapt, chunks"


def make_task(options: argparse.Namespace, share: float, hidden: int) -> Task:
    """Return random states, weights and labels, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[options.dtype]
    torch.manual_seed(0)
    states = torch.randn(options.positions, hidden, device=device, dtype=dtype)
    matrix = torch.randn(options.vocabulary, hidden, device=device, dtype=dtype) * 0.02
    places = torch.randperm(options.positions, device=device)[: round(share * options.positions)]
    labels = torch.randint(options.vocabulary, places.shape, device=device)
    return Task(states.requires_grad_(), matrix.requires_grad_(), places.sort().values, labels)


def resident(field: str) -> int:
    """Return the resident bytes of this process from /proc: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def peak_of(call: Callable[[], None]) -> int:
    """Return the peak bytes of a call beyond the memory before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # Sets VmHWM to VmRSS.
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def measure(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a forward and backward pass here, and the first one's bytes."""
    task = make_task(options, options.share, options.hidden)

    def once() -> None:
        task.states.grad = task.matrix.grad = None
        torch.autograd.backward(CASES[case](task))

    found: dict[str, float] = {"bytes": peak_of(once)}
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        once()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {**found, "seconds": statistics.median(seconds)}


def measured_apart(
    case: str, share: float, hidden: int, options: argparse.Namespace
) -> dict[str, float]:
    """Call `measure` in a separate process."""
    command = [sys.executable, "-m", "benchmarks.loss_head", "--case", case]
    command += ["--share", str(share), "--hidden", str(hidden), "--dtype", options.dtype]
    command += ["--positions", str(options.positions), "--vocabulary", str(options.vocabulary)]
    found: dict[str, float] = json.loads(run(command).output)
    return found


def compare(share: float, hidden: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all cases on one task, print the table, and return all figures."""
    calls = {case: partial(measured_apart, case, share, hidden, options) for case in CASES}
    samples = interleave(calls, options.repeat)
    medians = {
        case: {unit: statistics.median(sample[unit] for sample in found) for unit in found[0]}
        for case, found in samples.items()
    }
    rows = [
        [
            case,
            spread([1000 * sample["seconds"] for sample in found], 0),
            f"{medians[case]['seconds'] / medians[OURS]['seconds']:.2f}",
            spread([sample["bytes"] / 2**20 for sample in found], 0),
            f"{medians[case]['bytes'] / medians[OURS]['bytes']:.2f}",
        ]
        for case, found in samples.items()
    ]
    print(f"\n### {share:.0%} of {options.positions} positions are targets, width {hidden}\n")
    columns = ["case", "ms", "times ours", "peak MiB", "times ours"]
    print(table(columns, rows), flush=True)
    return {"share": share, "hidden": hidden, "samples": samples}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--case", choices=CASES, help="one case in this process; prints JSON")
    parser.add_argument("--share", type=float, default=0.15, help="of targets, with --case")
    parser.add_argument("--hidden", type=int, default=256, help="width of states, with --case")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options)))
        return
    entries = header(("torch",))
    if torch.cuda.is_available():
        entries["GPU"] = torch.cuda.get_device_name()
    print_header(entries)
    tasks = itertools.product((256, 768), (0.15, 1.0))
    found = [compare(share, hidden, options) for hidden, share in tasks]
    if options.json:
        options.json.write_text(json.dumps({"header": entries, "tasks": found}, indent=1))


if __name__ == "__main__":
    main()
