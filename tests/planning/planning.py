"""Runs and clusters to plan with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megapt.config import ClusterConfig, Origins, RunConfig
from megapt.data import TextFacts
from megapt.planning import Planner, made_up_text
from tests.objectives.builders import preset
from tests.training.runs import merged

DEVICE: dict[str, Any] = {
    "name": "d",
    "memory": 8e9,
    "usable": 1.0,
    "peak_flops": {"fp32": 1e13, "bf16": 1e14},
    "utilization": 0.5,
    "interconnect": 1e11,
    "network": 1e10,
    "price": 2.0,
}
_CLUSTER: dict[str, Any] = {
    "nodes": 2,
    "gpus_per_node": 4,
    "cpus_per_node": 8,
    "time": "1:00:00",
    "device": DEVICE,
}
_RUN: dict[str, Any] = {
    "output": "runs/x",
    "data": {"corpus": "nowhere", "window": 128},
    "model": {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "intermediate_size": 96},
    "training": {"budget": {"amount": 1e9}, "global_batch_size": 64, "micro_batch_size": 4},
    # By default 2 GB, which would hide all else of a model as small as this.
    "deepspeed": {"zero_optimization": {"reduce_bucket_size": 100_000}},
}


def cluster(**changes: Any) -> ClusterConfig:
    """Two nodes of four GPUs, changed."""
    return ClusterConfig.model_validate(merged(_CLUSTER, changes))


def run(objective: str = "arlm", **sections: Any) -> RunConfig:
    """A small run, `sections` changed."""
    return RunConfig.model_validate(merged({**_RUN, "objective": preset(objective)}, sections))


def planner(
    config: RunConfig, machines: ClusterConfig | None = None, text: TextFacts | None = None
) -> Planner:
    """The planner of a run on a cluster, by default that of `cluster`."""
    text = text or made_up_text(2000, labels=2)
    return Planner(config, Origins(), machines or cluster(), text)


def small_model(folder: Path, **changes: Any) -> Path:
    """Write a run's file; return it."""
    file = folder / "run.yaml"
    sections = merged({**_RUN, "objective": preset("arlm")}, changes)
    file.write_text(RunConfig.model_validate(sections).model_dump_json(), encoding="utf-8")
    return file
