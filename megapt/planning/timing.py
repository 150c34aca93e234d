"""Time of a step, and the best interval between checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megapt.config import ClusterConfig, DeviceConfig, RunConfig
from megapt.distributed.deepspeed_config import DTYPES

_RECOMPUTED = {"none": 0.0, "selective": 0.05, "full": 1 / 3}
"""Share of the model FLOPs that is computed again. `full` repeats the whole forward pass, a third
of the FLOPs; `selective` repeats norms, activations and rotations, a few percent of the time."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of an update."""

    compute: float
    communication: float
    overlapped: bool
    """Whether communication and computation overlap: by DeepSpeed's default, only at stage 3."""

    @property
    def total(self) -> float:
        """Total seconds."""
        both = self.compute, self.communication
        return max(both) if self.overlapped else sum(both)


def bytes_moved(stage: int, weights: float, ranks: int, micro_batches: int) -> float:
    """Return the bytes that a rank sends for an update, with ring collectives.

    A reduce-scatter and an all-gather each move (N - 1) / N of a tensor. Without ZeRO, gradients
    are reduced and gathered once (an all-reduce). DeepSpeed also all-reduces them at stages 1 and
    2, at stage 2 for every micro-batch; then the new weights are gathered. At stage 3, each
    micro-batch gathers weights for both passes and reduces gradients.

    Args:
        stage: ZeRO stage.
        weights: bytes of all weights; the gradients have the same size.
        ranks: N.
        micro_batches: micro-batches of an update on one rank.
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
        config: configuration with the planned micro-batch and recomputation.
        stage: ZeRO stage.
        cluster: the cluster of the run.
        device: the device of each rank.
        parameters: number of parameters of the model.
        flops: model FLOPs per raw token.
        speed: measured raw tokens per second of one device; with None, the device's utilization
            is used.
    """
    training = config.training
    tokens = training.global_batch_size * config.data.window
    if speed is None:
        reached = device.peak_flops[training.precision] * device.utilization
        repeated = _RECOMPUTED[training.recompute] / training.recompute_every
        compute = tokens * flops * (1 + repeated) / (reached * cluster.ranks)
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
    """Return the seconds between two checkpoints that lose the least time: sqrt(2 write MTBF).

    Young 1974; Daly 2006, equation 20 to first order. The lost time is the time of writing, and on
    average half an interval per fault.

    Args:
        write: seconds that training waits for a checkpoint.
        between_faults: mean seconds between two faults of the job (MTBF).
    """
    return math.sqrt(2 * write * between_faults)
