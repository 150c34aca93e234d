"""How long a step takes, what a run costs, and how often it should be saved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megapt.config import ClusterConfig, DeviceConfig, RunConfig
from megapt.distributed.deepspeed_config import DTYPES

_RECOMPUTED = {"none": 0.0, "selective": 0.05, "full": 1 / 3}
"""Share of the model FLOPs that is computed again: of `full` the whole forward pass, which is a
third of them; of `selective` norms, activations and rotations, a few per cent of the time."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of an update."""

    compute: float
    communication: float
    overlapped: bool
    """Whether communication goes on beside computing: by DeepSpeed's default at stage 3 alone."""

    @property
    def total(self) -> float:
        """Seconds in all."""
        both = self.compute, self.communication
        return max(both) if self.overlapped else sum(both)


def bytes_moved(stage: int, weights: float, ranks: int, micro_batches: int) -> float:
    """Return the bytes that a rank sends for an update, in rings.

    A reduction and a gathering move (N - 1) / N of a tensor each. Without ZeRO gradients are
    reduced and gathered once (an all-reduce). DeepSpeed reduces them so at stages 1 and 2, too, and
    at 2 for every micro-batch; then the new weights are gathered. At stage 3 each micro-batch
    gathers weights for both passes and reduces gradients.

    Args:
        stage: of ZeRO.
        weights: bytes of all weights, which are those of the gradients too.
        ranks: N.
        micro_batches: of an update, on one rank.
    """
    tensors = {0: 2, 1: 2 + 1, 2: 2 * micro_batches + 1, 3: 3 * micro_batches}[stage]
    return tensors * weights * (ranks - 1) / ranks


def step_time(
    config: RunConfig,
    stage: int,
    cluster: ClusterConfig,
    device: DeviceConfig,
    parameters: int,
    flops: float,
    speed: float | None = None,
) -> StepTime:
    """Return the expected time of an update.

    Args:
        config: with the micro-batch and recomputation that are planned.
        stage: of ZeRO.
        cluster: its nodes.
        device: what each rank computes on.
        parameters: of the model.
        flops: model FLOPs of a raw token.
        speed: raw tokens a second of one device, if they were measured; else by its utilization.
    """
    training = config.training
    tokens = training.global_batch_size * config.data.window
    if speed is None:
        reached = device.peak_flops[training.precision] * device.utilization
        again = _RECOMPUTED[training.recompute] / training.recompute_every
        compute = tokens * flops * (1 + again) / (reached * cluster.ranks)
    else:
        compute = tokens / (speed * cluster.ranks)
    shares = cluster.ranks // config.parallel.sequence_parallel_size
    micro_batches = training.global_batch_size // (shares * training.micro_batch_size)
    weights = parameters * DTYPES[training.precision].itemsize
    moved = bytes_moved(stage, float(weights), cluster.ranks, micro_batches)
    slowest = device.interconnect if cluster.nodes == 1 else device.network
    assert slowest is not None  # the cluster's validator
    return StepTime(compute, moved / slowest, overlapped=stage == 3)


def best_interval(write: float, between_faults: float) -> float:
    """Return the seconds between two checkpoints that lose least time: sqrt(2 write MTBF).

    Young 1974; Daly 2006, equation 20 to first order. Lost are the seconds of writing, and on
    average half an interval at each fault.

    Args:
        write: seconds that training stands still for a checkpoint.
        between_faults: seconds between two faults of the job.
    """
    return math.sqrt(2 * write * between_faults)
