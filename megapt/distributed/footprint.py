"""What DeepSpeed holds on a rank beside activations, as its source (0.19) allocates it.

N ranks share P parameters; a partition is q = P / N of them. Weights and gradients take w bytes an
element, 4 in fp32 and 2 in bf16 and fp16; what the optimizer keeps is float32.
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
"""Elements that the engine reduces at once without ZeRO (`buffered_allreduce_fallback`)."""
_ZERO_DEFAULTS = {
    "reduce_bucket_size": 500_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
}


@dataclass(frozen=True)
class Trace:
    """The bytes that live beside weights and finished gradients, over one micro-batch."""

    peaks: NDArray[np.float64]
    """The most of them at once before the first gradient is finished, between the first and the
    second, ..., after the last, [parameters + 1]. A gradient in flight counts."""
    finished: NDArray[np.float64]
    """Elements of the gradients that are finished in each of these spans, [parameters + 1]."""
    trunk: float
    """What the trunk leaves for the backward pass."""
    head: float
    """What the heads take beside it at their largest."""

    @property
    def most(self) -> float:
        """The most bytes at once."""
        return float(self.peaks.max())


@dataclass(frozen=True)
class Footprint:
    """Bytes of one rank; the parts are those of the moment at which most is held."""

    stage: int
    parts: Mapping[str, float] = field(default_factory=dict)
    """Weights, optimizer, gradients, buffers, activations, temporary."""
    moment: str = ""
    """`passes` (forward and backward), `reduction` or `update`."""
    host: float = 0.0
    """What is offloaded to the memory of the node."""
    start: float = 0.0
    """The most before the first step."""

    @property
    def total(self) -> float:
        """The peak."""
        return max(sum(self.parts.values()), self.start)


@dataclass(frozen=True)
class Job:
    """What the states of a rank depend on.

    Args:
        config: of the run; its stage is that which is asked for.
        zero: DeepSpeed's section `zero_optimization`.
        ranks: of the job.
        device: `cpu` or `cuda`.
        parameters: P.
        largest: elements of the largest parameter.
        state_bytes: of the optimizer's states of one parameter.
        update_bytes: that the optimizer takes while it updates, for each element of a tensor.
    """

    config: RunConfig
    zero: Mapping[str, Any]
    ranks: int
    device: str
    parameters: int
    largest: int
    state_bytes: int
    update_bytes: int

    @property
    def width(self) -> int:
        """Bytes w of a weight."""
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
        """Bytes of the bucket that gradients are reduced in; the engine asks for no larger one."""
        return self.width * min(self._elements("reduce_bucket_size"), self.parameters)

    def _update(self, size: float) -> float:
        """Return what the update of a flat tensor takes beside it."""
        return self.update_bytes * size

    def footprint(self, trace: Trace) -> Footprint:
        """Return the memory of a rank that runs micro-batches like that of `trace`."""
        stage = int(self.zero["stage"])
        if stage == 0:
            return self._unsharded(trace)
        return self._gathered(trace) if stage == 3 else self._sharded(stage, trace)

    def _passes(self, trace: Trace, kept: bool) -> tuple[float, float]:
        """Return the activations and gradients of the moment of a pass at which both are most.

        Args:
            trace: of a micro-batch.
            kept: whether finished gradients stay where they are until the update.
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

    def _unsharded(self, trace: Trace) -> Footprint:
        """Stage 0, float32: torch's own optimizer on the parameters as they are."""
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
        return self._most(0, held, moments, host=0.0, start=held["weights"])

    def _sharded(self, stage: int, trace: Trace) -> Footprint:
        """Stages 1 and 2: flat weights, a float32 partition of them that is updated."""
        whole, part = float(self.parameters), self.parameters / self.ranks
        states = _FLOAT * part + self._states(part)
        offloads = self.config.parallel.offload_optimizer != "none"
        host = states + (self.width + _FLOAT) * part if offloads else 0.0
        staged = 2 * self.width * self.largest if offloads else 0.0
        held = {"weights": self.width * whole, "optimizer": 0.0 if offloads else states}
        own = 0.0 if offloads else self.width * part
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
            "update": {"gradients": own, "temporary": self._temporary(part, offloads)},
        }
        # The whole model is there in float32, then a flat copy of it in the run's precision.
        start = max(_FLOAT * whole, 2 * self.width * whole)
        return self._most(stage, held, moments, host, start)

    def _temporary(self, part: float, offloads: bool) -> float:
        """Return what the update of a partition takes: the norm, a float32 copy, the arithmetic."""
        norm = _DOUBLE * min(self.largest, part)
        if offloads:
            return norm
        casting = self.width * part if self.width < _FLOAT else 0.0
        return max(norm, _FLOAT * part + max(casting, self._update(part)))

    def _gathered(self, trace: Trace) -> Footprint:
        """Stage 3: weights are gathered for the modules that compute, and some ahead."""
        whole, part = float(self.parameters), self.parameters / self.ranks
        parallel = self.config.parallel
        states = _FLOAT * part + self._states(part)
        resident = self.width * part
        offloads, away = parallel.offload_optimizer != "none", parallel.offload_param != "none"
        host = (states + (self.width + _FLOAT) * part if offloads else 0.0) + resident * away
        ahead = self._elements("stage3_prefetch_bucket_size")
        reused = self._elements("stage3_max_reuse_distance")
        # What the backward pass needs soon again stays; both passes count in the distance.
        live = self.width * min(whole, reused / 2 + ahead + self.largest)
        # What is gathered ahead arrives in one flat tensor, and is copied out of it.
        arriving = self.width * min(max(whole - self.largest, 0.0), ahead)
        if parallel.zero_hpz_partition_size > 1:
            resident += self.width * whole / parallel.zero_hpz_partition_size
        held = {
            "weights": 0.0 if away else resident,
            "optimizer": 0.0 if offloads else states,
            "gradients": 0.0 if offloads else self.width * part,
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
            "update": {"temporary": self._temporary(part, offloads)},
        }
        # A GPU gets its parts one parameter after another; a process on CPUs has the whole model.
        start = _FLOAT * float(self.largest if self.device == "cuda" else whole) + resident
        return self._most(3, held, moments, host, start)

    def _most(
        self,
        stage: int,
        held: Mapping[str, float],
        moments: Mapping[str, Mapping[str, float]],
        host: float,
        start: float,
    ) -> Footprint:
        """Return the moment at which most is held."""
        whole = {name: {**held, **extra} for name, extra in moments.items()}
        moment = max(whole, key=lambda name: sum(whole[name].values()))
        if self.device == "cpu":  # There is no other memory that could be offloaded to.
            whole[moment]["optimizer"] = whole[moment]["optimizer"] + host
        return Footprint(stage, whole[moment], moment, host, start)
