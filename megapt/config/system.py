"""The sections `parallel`, `checkpoint`, `faults`, `monitor` and `branch`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from megapt.config.section import (
    NonNegativeFloat,
    NonNegativeInt,
    Parts,
    PartSection,
    PositiveFloat,
    PositiveInt,
    Section,
)

Offload = Literal["none", "cpu", "nvme"]
Place = Annotated[str, Field(min_length=1)]


class ParallelConfig(Section):
    """How the ranks divide the work. Results stay the same, unless a key says otherwise."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over the ranks. 0: nothing; 1: optimizer states; 2: also gradients; 3:
    also parameters. With bf16 and fp16, 0 runs as 1, which computes the same update."""
    offload_optimizer: Offload = "none"
    """Offloads optimizer states and float32 weights: `cpu` needs zero_stage 1 or more and updates
    them on the host; `nvme` needs zero_stage 3 and nvme_path. `none`: they stay on the device."""
    offload_param: Offload = "none"
    """Offloads parameters between uses to `cpu` or `nvme`; needs zero_stage 3. `none`: off."""
    nvme_path: str | None = None
    """Folder for data that are offloaded to `nvme`."""
    zero_hpz_partition_size: PositiveInt = 1
    """Number of ranks, usually those of one node, that share a second copy of all parameters, so
    that backward passes gather only inside this group (ZeRO++ hpZ, Wang et al. 2023). 1: off. It
    divides the ranks and needs zero_stage 3."""
    zero_quantized_weights: bool = False
    """Whether parameters are gathered in 8 bits (ZeRO++ qwZ); changes the results. Needs zero_stage
    3 and CUDA."""
    zero_quantized_gradients: bool = False
    """Whether gradients are reduced in 4 bits (ZeRO++ qgZ); changes the results. Needs zero_stage 3
    and CUDA."""
    sequence_parallel_size: PositiveInt = 1
    """Number of ranks that share the positions of each micro-batch (DeepSpeed Ulysses, Jacobs et
    al. 2023). 1: off. It divides the ranks and the heads of the model."""

    @model_validator(mode="after")
    def _stages(self) -> ParallelConfig:
        needs = {
            "offload_optimizer": (self.offload_optimizer == "cpu", 1),
            "offload_optimizer nvme": (self.offload_optimizer == "nvme", 3),
            "offload_param": (self.offload_param != "none", 3),
            "zero_hpz_partition_size": (self.zero_hpz_partition_size > 1, 3),
            "zero_quantized_weights": (self.zero_quantized_weights, 3),
            "zero_quantized_gradients": (self.zero_quantized_gradients, 3),
        }
        for name, (used, stage) in needs.items():
            if used and self.zero_stage < stage:
                raise ValueError(f"{name} needs zero_stage {stage}, not {self.zero_stage}")
        if "nvme" in (self.offload_optimizer, self.offload_param) and not self.nvme_path:
            raise ValueError("offloading to nvme needs an nvme_path")
        return self


class CheckpointConfig(Section):
    """When checkpoints are saved, which are kept, and where."""

    every: NonNegativeInt = 500
    """Steps between two checkpoints. 0: only at the end."""
    keep_last: PositiveInt = 2
    """Number of newest checkpoints that are kept."""
    keep_every: NonNegativeInt = 0
    """Checkpoints at multiples of this many steps are never removed. 0: none."""
    keep_best: NonNegativeInt = 0
    """Number of checkpoints with the lowest validation `metric` that are also kept. 0: none."""
    metric: str = "loss"
    """Name in metrics.jsonl of the metric for `keep_best`, from the last validation before the
    checkpoint; lower is better."""
    async_save: bool = False
    """Whether training continues while files are written, from a copy in host memory."""
    copy_to: Place | None = None
    """Folder or URL (s3://bucket/run, through fsspec) to which complete checkpoints are copied. A
    run folder without a usable checkpoint resumes from there. None: no copies."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: the run resumes from its newest complete checkpoint. `never`: a folder that already
    has a run is refused."""


class FaultsConfig(Section):
    """Limits and reactions for faults."""

    timeout: PositiveFloat = 600.0
    """Seconds without progress of some rank after which the stacks are written and the job ends.
    Waiting for data or for other ranks is no progress."""
    slow_phase_timeout: PositiveFloat = 1800.0
    """The same for the start, the first step with its compilation, a checkpoint or a validation."""
    max_skipped_updates: PositiveInt = 10
    """Number of skipped updates in a row, for example with a loss or gradient that is not finite,
    after which the run rolls back to its last checkpoint and continues with the next text. With
    fp16, at least 40 gradients may overflow in a row while the loss scale adapts."""
    max_rollbacks: NonNegativeInt = 3
    """Maximum number of rollbacks; the run ends when another is needed."""
    spike_threshold: NonNegativeFloat = 0.0
    """Number of standard deviations above the mean of the last `spike_window` losses at which a
    loss is a spike. 0: spikes are not detected."""
    spike_window: Annotated[int, Field(ge=8)] = 128
    """Number of updates whose losses give the mean and the standard deviation."""
    on_spike: Literal["record", "skip", "rollback"] = "record"
    """`record`: a spike is only recorded. `skip`: its update is also skipped. `rollback`: the run
    also rolls back."""
    check_replicas_every: NonNegativeInt = 500
    """Steps between two comparisons of replicated weights. 0: never."""


def _trackers(*names: str) -> list[PartSection]:
    return [PartSection(name=name) for name in names]


class MonitorConfig(Section):
    """What a run records in addition to its losses."""

    norms_by_group: bool = False
    """Whether gradient norm, weight norm and update-to-weight ratio are recorded for each
    embedding, block and head."""
    histograms_every: NonNegativeInt = 0
    """Steps between two histograms of the weights in TensorBoard. 0: none."""
    num_samples: NonNegativeInt = 0
    """Number of texts generated at each validation, if the objective can generate. 0: none."""
    max_new_tokens: PositiveInt = 64
    """Maximum length of these texts, in tokens."""
    profile_from: NonNegativeInt = 0
    """First step that torch's profiler traces. 0: none."""
    profile_steps: PositiveInt = 3
    """Number of steps in the trace."""
    trackers: Parts = Field(default_factory=lambda: _trackers("jsonl", "tensorboard"))
    """Destinations of the records. `jsonl`: metrics.jsonl, which is always written. `tensorboard`:
    event files of TensorBoard. `prometheus`: the file `path` in the text format of Prometheus, for
    node_exporter's textfile collector. A section with `file` names a custom tracker."""
    peak_flops: PositiveFloat | None = None
    """Peak of one rank's device for the utilization, in FLOPs per second in the precision of the
    run. None: the peak in the data sheet, if megapt knows the device."""

    @field_validator("trackers")
    @classmethod
    def _complete(cls, trackers: list[PartSection]) -> list[PartSection]:
        named = any(tracker.name == "jsonl" for tracker in trackers)
        return trackers if named else [*trackers, *_trackers("jsonl")]


class BranchConfig(Section):
    """The checkpoint of another run from which this run starts."""

    run: Place
    """Folder of the parent run."""
    step: PositiveInt | None = None
    """Step of the parent's checkpoint. None: the newest."""
