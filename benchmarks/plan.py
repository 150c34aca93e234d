"""The memory that `megapt plan` computes, compared with measured memory.

Each case is rehearsed (`megapt train --dry-run` without a corpus) by separate ranks, and the peak
memory of a rank is measured: the resident memory of a process, or the allocator's memory of a GPU.

    python -m benchmarks.plan [--cuda] [case …]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.common import header, print_header, run_ranks, table

_SMALL = {"num_layers": 6, "hidden_size": 512, "num_heads": 8, "intermediate_size": 1536}
_BUCKET = {"zero_optimization": {"reduce_bucket_size": 8_000_000}}
"""For these models, this size is comparable to DeepSpeed's 500 million for usual models."""

_Sections = Mapping[str, Any]
CASES: dict[str, tuple[int, _Sections]] = {
    "arlm, stage 0": (1, {}),
    "arlm, stage 0, 2 micro-batches": (
        2,
        {"training": {"global_batch_size": 16, "micro_batch_size": 4}},
    ),
    "arlm, stage 1": (2, {"parallel": {"zero_stage": 1}}),
    "arlm, stage 2, bf16": (2, {"parallel": {"zero_stage": 2}, "training": {"precision": "bf16"}}),
    "arlm, stage 3": (2, {"parallel": {"zero_stage": 3}}),
    "arlm, stage 3, bf16": (2, {"parallel": {"zero_stage": 3}, "training": {"precision": "bf16"}}),
    "arlm, stage 1, bf16, full": (
        2,
        {
            # The test suite runs this case; without bfloat16 hardware, longer windows take minutes.
            "data": {"corpus": "nowhere", "window": 16},
            "parallel": {"zero_stage": 1},
            "training": {"precision": "bf16", "recompute": "full"},
        },
    ),
    "mlm, stage 0, selective": (
        1,
        {"objective": {"name": "mlm"}, "training": {"recompute": "selective"}},
    ),
    "mlm, stage 2, 16 windows": (
        2,
        {
            "objective": {"name": "mlm"},
            "parallel": {"zero_stage": 2},
            "training": {"global_batch_size": 32, "micro_batch_size": 16},
        },
    ),
    "mgm, stage 0, full": (1, {"objective": {"name": "mgm"}, "training": {"recompute": "full"}}),
    "electra, stage 1": (2, {"objective": {"name": "electra"}, "parallel": {"zero_stage": 1}}),
}
"""Name -> ranks, and the differences from `_sections`."""


def _sections(world: int, changes: _Sections) -> dict[str, Any]:
    training = {
        "budget": {"amount": 1.0},
        "global_batch_size": 4 * world,
        "micro_batch_size": 4,
        **changes.get("training", {}),
    }
    usual = {
        "output": "nowhere",
        "data": {"corpus": "nowhere", "window": 256},
        "objective": {"name": "arlm"},
        "model": _SMALL,
        "deepspeed": _BUCKET,
    }
    return {**usual, **changes, "training": training}


def _plan(world: int, sections: _Sections, vocabulary: int, cuda: bool) -> float:
    """Return the planned bytes."""
    from megapt.config import ClusterConfig, Origins, RunConfig
    from megapt.planning import Planner, made_up_text

    device = {"name": "this one", "memory": 1e12, "interconnect": 1e10, "network": 1e10}
    cluster = ClusterConfig.model_validate(
        {
            "gpus_per_node": world if cuda else 0,
            "cpu_ranks_per_node": world,
            "cpus_per_node": world,
            "time": "1:00:00",
            "device": {**device, "peak_flops": {"fp32": 1e12, "bf16": 1e12, "fp16": 1e12}},
        }
    )
    config = RunConfig.model_validate(sections)
    planner = Planner(config, Origins(), cluster, made_up_text(vocabulary))
    size, stage = config.training.micro_batch_size, config.parallel.zero_stage
    trace = planner.trace(size, config.training.recompute)
    return planner.footprint(stage, trace, size).total


def _be_rank(sections: _Sections, vocabulary: int) -> None:
    """Rehearse as one rank; the first rank prints the measured bytes."""
    import torch

    from megapt.config import Origins, RunConfig
    from megapt.distributed.start import start_ranks
    from megapt.planning import made_up_text
    from megapt.planning.rehearsal import rehearse
    from megapt.training.parts import find_parts

    torch.set_num_threads(1)
    ranks, text = start_ranks(), made_up_text(vocabulary)

    def measured(sections: _Sections) -> float:
        config = RunConfig.model_validate(sections)
        return rehearse(find_parts(config, ranks, Origins(), text), text).peak_bytes

    tiny = {"num_layers": 1, "hidden_size": 16, "num_heads": 1, "intermediate_size": 16}
    measured({**sections, "model": tiny})  # Loads everything that is loaded at first use.
    found = measured(sections)
    if ranks.main:
        print(json.dumps(found), flush=True)
    os._exit(0)


def measure(world: int, sections: _Sections, vocabulary: int, cuda: bool = False) -> float:
    """Return the largest peak bytes of a rank."""
    command = [sys.executable, "-m", __spec__.name, "--rank", json.dumps([sections, vocabulary])]
    variables = {
        # glibc maps each tensor separately and frees it immediately.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "1",
        **({} if cuda else {"DS_ACCELERATOR": "cpu"}),
    }
    printed, *_ = run_ranks(command, world, **variables)
    found: float = json.loads(printed.splitlines()[-1])
    return found


def compare(name: str, cuda: bool = False, vocabulary: int = 16_000) -> tuple[float, float]:
    """Return the planned and the measured bytes of a case."""
    world, changes = CASES[name]
    sections = _sections(world, changes)
    planned = _plan(world, sections, vocabulary, cuda)
    return planned, measure(world, sections, vocabulary, cuda)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.plan")
    parser.add_argument("--cuda", action="store_true", help="on GPUs, one per rank")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", help=f"by default all: {'; '.join(CASES)}")
    options = parser.parse_args()
    if options.rank is not None:
        _be_rank(*json.loads(options.rank))
    print_header(header(["torch", "deepspeed"]))
    rows = []
    for name in options.cases or CASES:
        planned, measured = compare(name, options.cuda)
        cells = f"{planned / 1e6:,.0f}", f"{measured / 1e6:,.0f}", f"{planned / measured:.2f}"
        rows.append([name, str(CASES[name][0]), *cells])
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    columns = ["case", "ranks", "planned, MB", "measured, MB", "planned / measured"]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
