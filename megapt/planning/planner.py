"""Computation of the memory, time and cost of a run on a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np

from megapt.config import ClusterConfig, Origins, RunConfig
from megapt.data import TextFacts
from megapt.distributed.deepspeed_config import DTYPES, deepspeed_config, zero_stage
from megapt.distributed.footprint import Footprint, Job, Trace
from megapt.errors import ConfigError
from megapt.model import training_flops
from megapt.optim import check_optimizer
from megapt.planning.plan import Plan, Settings, StagePlan
from megapt.planning.text import made_up_batch, piece_length
from megapt.planning.timing import best_interval, step_time
from megapt.planning.tracing import Tracer, parameters_by_part
from megapt.training.checks import choose_rows
from megapt.training.parts import find_parts, first_rank

_RECOMPUTATION = ("none", "selective", "full")
_POSITIONS = 2**16
"""Positions of the largest micro-batch that is tried; larger ones are not faster on any device."""


class Planner:
    """Plans one run on one cluster.

    Args:
        config: configuration of the run.
        origins: origins of the configuration, for errors.
        cluster: a cluster with a section `device`.
        text: facts of the corpus.

    Raises:
        ConfigError: if the run cannot run on the cluster.
    """

    def __init__(
        self, config: RunConfig, origins: Origins, cluster: ClusterConfig, text: TextFacts
    ) -> None:
        if cluster.device is None:
            raise ConfigError("device: missing; a plan needs this section of the cluster file")
        self.config, self.origins, self.cluster, self.text = config, origins, cluster, text
        self.device = cluster.device
        self.kind = "cuda" if cluster.gpus_per_node else "cpu"
        self.parts = find_parts(config, first_rank(cluster), origins, text)
        if config.training.precision not in cluster.device.peak_flops:
            raise ConfigError(
                f"device.peak_flops: has no '{config.training.precision}', the precision of the run"
            )
        self.ranks, self.objective = self.parts.ranks, self.parts.objective
        self.optimizer, self.shares = self.parts.optimizer, self.parts.ranks.data_world
        self._tracers: dict[str, Tracer] = {}
        self._traces: dict[tuple[str, int], Trace] = {}
        model = self._tracer(config.training.recompute).model
        sizes = [parameter.numel() for parameter in model.parameters()]
        self.parameters, self.largest = sum(sizes), max(sizes)
        self.by_part = parameters_by_part(model)

    def _with(self, **changes: dict[str, Any]) -> RunConfig:
        """Return the configuration with changed sections."""
        sections = {
            name: getattr(self.config, name).model_copy(update=values)
            for name, values in changes.items()
        }
        return self.config.model_copy(update=sections)

    def _tracer(self, recompute: str) -> Tracer:
        if recompute not in self._tracers:
            config = self._with(training={"recompute": recompute})
            self._tracers[recompute] = Tracer(config, self.parts, self.kind)
        return self._tracers[recompute]

    def trace(self, micro_batch_size: int, recompute: str) -> Trace:
        """Return the memory trace of a micro-batch, of one rank's share of its positions."""
        key = recompute, micro_batch_size
        if key not in self._traces:
            config = self._with(training={"micro_batch_size": micro_batch_size})
            rows = choose_rows(config, self.objective, self.origins)
            size = max(1, self.config.data.window // self.config.parallel.sequence_parallel_size)
            batch = made_up_batch(self.text, self.objective, size, micro_batch_size, rows)
            self._traces[key] = self._tracer(recompute).trace(batch)
        return self._traces[key]

    def _zero(self, stage: int) -> dict[str, Any]:
        """Return DeepSpeed's section `zero_optimization` at a stage.

        Raises:
            ConfigError: if the run cannot use the stage.
        """
        config = self._with(parallel={"zero_stage": stage})
        check_optimizer(self.optimizer, config, zero_stage(config), self.origins)
        settings = deepspeed_config(config, self.ranks, self.origins)
        zero: dict[str, Any] = settings["zero_optimization"]
        return zero

    def footprint(self, stage: int, trace: Trace, micro_batch_size: int) -> Footprint:
        """Return the memory of a rank at a stage."""
        config = self._with(
            parallel={"zero_stage": stage}, training={"micro_batch_size": micro_batch_size}
        )
        zero = self._zero(stage)
        job = Job(
            config,
            zero,
            self.cluster.ranks,
            self.kind,
            self.parameters,
            self.largest,
            self.optimizer.state_bytes,
            self.optimizer.update_bytes,
        )
        return job.footprint(trace)

    def fits(self, footprint: Footprint) -> bool:
        """Return whether a footprint fits the usable memory of a rank."""
        return footprint.total <= self.device.memory * self.device.usable

    def largest_micro_batch(self, stage: int, recompute: str) -> int:
        """Return the largest micro-batch that divides a rank's batch and fits; 0 if none fits."""
        nothing = Trace(np.zeros(1), np.zeros(1), 0.0, 0.0)
        if not self.fits(self.footprint(stage, nothing, 1)):
            return 0
        share = self.config.training.global_batch_size // self.shares
        most = max(1, _POSITIONS // self.config.data.window)
        sizes = [n for n in range(1, min(share, most) + 1) if share % n == 0]
        low, high = 0, len(sizes)
        while low < high:
            middle = (low + high) // 2
            trace = self.trace(sizes[middle], recompute)
            if self.fits(self.footprint(stage, trace, sizes[middle])):
                low = middle + 1
            else:
                high = middle
        return sizes[low - 1] if low else 0

    def _stages(self) -> list[int]:
        """Return the stages that the run can use."""
        return [stage for stage in self._allowed_stages() if self._can_use(stage)]

    def _can_use(self, stage: int) -> bool:
        """Return whether the other settings of the run, such as the optimizer, allow a stage."""
        try:
            self._zero(stage)
        except ConfigError:
            return False
        return True

    def _allowed_stages(self) -> list[int]:
        """Return the stages that the section `parallel` and the precision allow."""
        parallel = self.config.parallel
        sharded = parallel.offload_optimizer == "cpu"
        needs_stage_3 = (
            parallel.offload_param != "none"
            or parallel.offload_optimizer == "nvme"
            or parallel.zero_hpz_partition_size > 1
            or parallel.zero_quantized_weights
            or parallel.zero_quantized_gradients
        )
        if needs_stage_3:
            return [3]
        # Half precision without ZeRO runs as stage 1.
        return [1, 2, 3] if sharded or self.config.training.precision != "fp32" else [0, 1, 2, 3]

    def _recommended(self) -> tuple[int, int, str]:
        """Return the smallest stage that fits, its largest micro-batch, and the recomputation.

        Recomputation costs time at every stage, so it is tried last.
        """
        configured = self.config.training.recompute
        for recompute in _RECOMPUTATION[_RECOMPUTATION.index(configured) :]:
            for stage in self._stages():
                if size := self.largest_micro_batch(stage, recompute):
                    return stage, size, recompute
        least = self.footprint(self._stages()[-1], self.trace(1, "full"), 1)
        raise self.origins.error(
            "training.micro_batch_size",
            f"not even 1 window fits a rank: at stage {least.stage}, fully recomputed, it takes "
            f"{least.total / 1e9:,.1f} GB of {self.device.memory * self.device.usable / 1e9:,.1f} "
            f"GB; more ranks, parallel.offload_optimizer or parallel.sequence_parallel_size may "
            f"help",
        )

    def plan(self, speed: float | None = None) -> Plan:
        """Return the plan.

        Args:
            speed: measured raw tokens per second of one device, from which the time follows.

        Raises:
            ConfigError: if no micro-batch fits at any stage.
        """
        config, size = self.config, self.config.training.micro_batch_size
        trace = self.trace(size, config.training.recompute)
        stages = [
            StagePlan(
                self.footprint(stage, trace, size),
                self.largest_micro_batch(stage, config.training.recompute),
            )
            for stage in self._stages()
        ]
        stage, micro_batch_size, recompute = self._recommended()
        chosen = self._with(
            parallel={"zero_stage": stage},
            training={"micro_batch_size": micro_batch_size, "recompute": recompute},
        )
        memory = self.footprint(stage, self.trace(micro_batch_size, recompute), micro_batch_size)
        counts = made_up_batch(self.text, self.objective, config.data.window, 8).counts
        heads, vocabulary = self.objective.heads, self.text.vocabulary.size
        flops = training_flops(config.model, heads, counts, vocabulary) / counts.raw_tokens
        length = piece_length(self.text, config.data.window)
        cost = self.objective.cost(length)
        positions, targets = cost.positions / length, cost.targets / length
        step = step_time(
            chosen, memory.stage, self.cluster, self.device, self.parameters, flops, speed
        )
        tokens_per_step = config.training.global_batch_size * config.data.window
        budget = config.training.budget
        per_token = {
            "raw_tokens": 1.0,
            "positions": positions,
            "targets": targets,
            "model_flops": flops,
            "wall_clock": step.total / tokens_per_step,
        }
        tokens = budget.amount / per_token[budget.axis]
        width = DTYPES[config.training.precision].itemsize
        states = 4 + self.optimizer.state_bytes
        saved = self.parameters * (4.0 + width + states)
        writing = saved / (self.device.storage * self.cluster.nodes)
        faults = self.device.mtbf_hours * 3600 / self.cluster.ranks
        every = max(1, round(best_interval(writing, faults) / step.total))
        return Plan(
            device=self.device,
            ranks=self.cluster.ranks,
            parameters=self.by_part,
            positions=positions,
            targets=targets,
            flops=flops,
            activations=trace,
            stages=stages,
            settings=Settings(stage, micro_batch_size, recompute, every),
            memory=memory,
            step=step,
            steps=tokens / tokens_per_step,
            tokens=tokens,
            checkpoint_bytes=saved,
            checkpoint_seconds=writing,
            fault_seconds=faults,
        )
