"""The memory of a rank under DeepSpeed in addition to activations, as in its source (0.19).

N ranks share P parameters; a partition is q = P / N of them. Weights and gradients take w bytes per
element, 4 in fp32 and 2 in bf16 and fp16; the optimizer's states are float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megapt.config import RunConfig
from megapt.distributed.deepspeed_config import DTYPES

_FLOAT, _DOUBLE = 4, 8
_FALLBACK_BUCKET = 500_000_000
"""Elements per reduction of the engine without ZeRO (`buffered_allreduce_fallback`)."""
_ZERO_DEFAULTS = {
    "reduce_bucket_size": 500_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
}


@dataclass(frozen=True)
class Trace:
    """Memory during one micro-batch in addition to weights and finished gradients, in bytes."""

    peaks: NDArray[np.float64]
    """Peak before the first gradient is finished, between the first and the second, ..., and after
    the last, [parameters + 1]. It includes the gradient that is being computed."""
    finished: NDArray[np.float64]
    """Elements of the finished gradients in each of these intervals, [parameters + 1]."""
    trunk: float
    """Activations that the trunk keeps for the backward pass."""
    head: float
    """Peak of the heads in addition to `trunk`."""

    @property
    def most(self) -> float:
        """The peak."""
        return float(self.peaks.max())


@dataclass(frozen=True)
class Footprint:
    """Memory of one rank in bytes; the parts are those at the moment of the peak."""

    stage: int
    parts: Mapping[str, float] = field(default_factory=dict)
    """Weights, optimizer, gradients, buffers, activations, temporary."""
    moment: str = ""
    """`passes` (forward and backward), `reduction` or `update`."""
    host: float = 0.0
    """Memory offloaded to the host."""
    start: float = 0.0
    """Peak before the first step."""

    @property
    def total(self) -> float:
        """The peak."""
        return max(sum(self.parts.values()), self.start)


@dataclass(frozen=True)
class Job:
    """The quantities that determine the memory of a rank."""

    config: RunConfig
    """The run's configuration, with the requested ZeRO stage, not the effective one."""
    zero: Mapping[str, Any]
    """DeepSpeed's section `zero_optimization`."""
    ranks: int
    """Ranks of the job, N."""
    device: str
    """`cpu` or `cuda`."""
    parameters: int
    """Elements of all parameters, P."""
    largest: int
    """Elements of the largest parameter."""
    state_bytes: int
    """Bytes of optimizer states per element."""
    update_bytes: int
    """Temporary bytes per element of a tensor during its update."""

    @property
    def width(self) -> int:
        """Bytes per weight, w."""
        return DTYPES[self.config.training.precision].itemsize

    @property
    def accumulates(self) -> bool:
        """Whether an update takes several micro-batches."""
        training, shares = (
            self.config.training,
            self.ranks // self.config.parallel.sequence_parallel_size,
        )
        return training.global_batch_size > training.micro_batch_size * shares

    def _elements(self, key: str) -> int:
        return int(self.zero.get(key, _ZERO_DEFAULTS[key]))

    def _bucket(self) -> float:
        """Return the bytes of the reduction bucket; the engine requests at most all parameters."""
        return self.width * min(self._elements("reduce_bucket_size"), self.parameters)

    def _update(self, size: float) -> float:
        """Return the temporary bytes of the update of a flat tensor."""
        return self.update_bytes * size

    def footprint(self, trace: Trace) -> Footprint:
        """Return the memory of a rank that runs micro-batches like the one of `trace`."""
        stage = int(self.zero["stage"])
        if stage == 0:
            return self._stage_0(trace)
        return self._stage_3(trace) if stage == 3 else self._stage_1_or_2(stage, trace)

    def _passes(self, trace: Trace, kept: bool) -> tuple[float, float]:
        """Return activations and gradients at the moment of a pass when their sum peaks, in bytes.

        Args:
            trace: memory of a micro-batch.
            kept: whether finished gradients stay in memory until the update.
        """
        finished = trace.finished if kept else np.zeros_like(trace.finished)
        if kept and self.accumulates:
            finished = np.full_like(finished, self.parameters)
        at = int(np.argmax(trace.peaks + self.width * finished))
        return float(trace.peaks[at]), float(self.width * finished[at])

    def _average(self, size: float) -> float:
        return _FLOAT * size if self.config.optimizer.ema_decay else 0.0

    def _states(self, size: float) -> float:
        return self.state_bytes * size + self._average(size)

    def _stage_0(self, trace: Trace) -> Footprint:
        """Return the memory at stage 0, float32: torch's optimizer updates the parameters."""
        size = float(self.parameters)
        held = {"weights": self.width * size, "optimizer": self._states(size)}
        activations, gradients = self._passes(trace, kept=True)
        whole = self.width * size
        moments = {
            "passes": {"gradients": gradients, "activations": activations},
            "reduction": {
                "gradients": whole,
                "buffers": self.width * min(size, _FALLBACK_BUCKET),
            },
            "update": {"gradients": whole, "temporary": self._update(self.largest)},
        }
        return self._peak(0, held, moments, host=0.0, start=held["weights"])

    def _stage_1_or_2(self, stage: int, trace: Trace) -> Footprint:
        """Return the memory at stages 1 and 2: flat weights, and a float32 partition to update."""
        whole, part = float(self.parameters), self.parameters / self.ranks
        states = _FLOAT * part + self._states(part)
        offloads_optimizer = self.config.parallel.offload_optimizer != "none"
        host = states + (self.width + _FLOAT) * part if offloads_optimizer else 0.0
        staged = 2 * self.width * self.largest if offloads_optimizer else 0.0
        held = {"weights": self.width * whole, "optimizer": 0.0 if offloads_optimizer else states}
        own = 0.0 if offloads_optimizer else self.width * part
        activations, gradients = self._passes(trace, kept=stage == 1)
        if stage == 2:
            gradients = own * (2 if self.accumulates else 1)
        reducing = self.width * whole if stage == 1 else gradients
        bucket = self._bucket()
        moments = {
            "passes": {
                "gradients": gradients,
                "buffers": bucket + staged if stage == 2 or self.device == "cuda" else staged,
                "activations": activations,
            },
            "reduction": {"gradients": reducing + own, "buffers": bucket + staged},
            "update": {"gradients": own, "temporary": self._temporary(part, offloads_optimizer)},
        }
        # At the start there is the full float32 model, then a flat copy in the run's precision.
        start = max(_FLOAT * whole, 2 * self.width * whole)
        return self._peak(stage, held, moments, host, start)

    def _temporary(self, part: float, offloads_optimizer: bool) -> float:
        """Return temporary bytes of a partition's update: norm, float32 copy and arithmetic."""
        norm = _DOUBLE * min(self.largest, part)
        if offloads_optimizer:
            return norm
        casting = self.width * part if self.width < _FLOAT else 0.0
        return max(norm, _FLOAT * part + max(casting, self._update(part)))

    def _stage_3(self, trace: Trace) -> Footprint:
        """Return the memory at stage 3: weights are gathered when used, and some prefetched."""
        whole, part = float(self.parameters), self.parameters / self.ranks
        parallel = self.config.parallel
        states = _FLOAT * part + self._states(part)
        resident = self.width * part
        offloads_optimizer = parallel.offload_optimizer != "none"
        offloads_params = parallel.offload_param != "none"
        host = states + (self.width + _FLOAT) * part if offloads_optimizer else 0.0
        host += resident * offloads_params
        prefetched = self._elements("stage3_prefetch_bucket_size")
        reused = self._elements("stage3_max_reuse_distance")
        # Weights that are reused within `reused` elements stay; both passes count in the distance.
        live = self.width * min(whole, reused / 2 + prefetched + self.largest)
        # Prefetched weights arrive in one flat tensor and are copied out of it.
        arriving = self.width * min(max(whole - self.largest, 0.0), prefetched)
        if parallel.zero_hpz_partition_size > 1:
            resident += self.width * whole / parallel.zero_hpz_partition_size
        held = {
            "weights": 0.0 if offloads_params else resident,
            "optimizer": 0.0 if offloads_optimizer else states,
            "gradients": 0.0 if offloads_optimizer else self.width * part,
            "buffers": self._bucket(),
        }
        peak = max(trace.trunk + arriving, trace.most)
        activations = min(peak, trace.most)
        moments = {
            "passes": {
                "weights": held["weights"] + live,
                "buffers": held["buffers"] + peak - activations,
                "activations": activations,
            },
            "update": {"temporary": self._temporary(part, offloads_optimizer)},
        }
        # A GPU receives its partition parameter by parameter; a CPU process holds the full model.
        start = _FLOAT * float(self.largest if self.device == "cuda" else whole) + resident
        return self._peak(3, held, moments, host, start)

    def _peak(
        self,
        stage: int,
        held: Mapping[str, float],
        moments: Mapping[str, Mapping[str, float]],
        host: float,
        start: float,
    ) -> Footprint:
        """Return the memory at the moment of the peak."""
        whole = {name: {**held, **extra} for name, extra in moments.items()}
        moment = max(whole, key=lambda name: sum(whole[name].values()))
        if self.device == "cpu":  # Offload uses the same memory.
            whole[moment]["optimizer"] = whole[moment]["optimizer"] + host
        return Footprint(stage, whole[moment], moment, host, start)
