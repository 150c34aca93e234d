"""What a run needs beside its mathematics: ranks, checkpoints, faults, and who watches."""

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
    """How the work is spread over the ranks. Nothing here changes what is computed."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over the ranks: nothing, optimizer states (1), gradients (2),
    parameters (3). With bf16 and fp16, 0 runs as 1, whose update is the same."""
    offload_optimizer: Offload = "none"
    """Where optimizer states and float32 weights are kept and updated; `cpu` needs zero_stage 1 or
    more, `nvme` 3."""
    offload_param: Offload = "none"
    """Where parameters are kept between uses; needs zero_stage 3."""
    nvme_path: str | None = None
    """Folder for what is offloaded to `nvme`."""
    zero_hpz_partition_size: PositiveInt = 1
    """Ranks, as a rule those of a node, that hold all parameters among them a second time, so that
    backward passes gather within the node (ZeRO++ hpZ, Wang et al. 2023); needs zero_stage 3."""
    zero_quantized_weights: bool = False
    """Parameters are gathered in 8 bits (ZeRO++ qwZ); needs zero_stage 3, CUDA; not exact."""
    zero_quantized_gradients: bool = False
    """Gradients are reduced in 4 bits (ZeRO++ qgZ); needs zero_stage 3, CUDA; not exact."""
    sequence_parallel_size: PositiveInt = 1
    """Ranks that share the positions of each micro-batch (DeepSpeed Ulysses, Jacobs et al. 2023);
    divides the ranks and the model's heads."""

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
        for name, (asked, stage) in needs.items():
            if asked and self.zero_stage < stage:
                raise ValueError(f"{name} needs zero_stage {stage}, not {self.zero_stage}")
        if "nvme" in (self.offload_optimizer, self.offload_param) and not self.nvme_path:
            raise ValueError("offloading to nvme needs an nvme_path")
        return self


class CheckpointConfig(Section):
    """When the state of a run is saved, what is kept, and where."""

    every: NonNegativeInt = 500
    """Steps between two checkpoints; 0 writes one at the end alone."""
    keep_last: PositiveInt = 2
    """The newest so many are kept."""
    keep_every: NonNegativeInt = 0
    """Those after a multiple of so many steps are kept for good."""
    keep_best: NonNegativeInt = 0
    """So many with the least held-out `metric` are kept."""
    metric: str = "loss"
    """Of the last validation before the checkpoint, by its name in metrics.jsonl."""
    async_save: bool = False
    """Training goes on while the files are written, from a copy in the ranks' memory."""
    copy_to: Place | None = None
    """Folder or URL (s3://bucket/run, through fsspec) that complete checkpoints are copied to, and
    read from when the run folder has none."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: the run goes on from its newest complete checkpoint. `never`: a begun run is
    refused."""


class FaultsConfig(Section):
    """What is done when something goes wrong."""

    timeout: PositiveFloat = 600.0
    """Seconds without progress of some rank, also in a wait for data or for other ranks, after
    which the job is ended, all stacks written."""
    start_timeout: PositiveFloat = 1800.0
    """The same for what may take long: the start, compilation, a checkpoint, a validation."""
    max_skipped_updates: PositiveInt = 10
    """Updates in a row whose loss or gradient is not finite: each is skipped, and at so many the
    run goes back to its last checkpoint, and on after their text. With fp16, gradients that
    overflow while the loss scale finds its size are given 40, if that is more."""
    max_rollbacks: NonNegativeInt = 3
    """The run may go back so often; then it ends."""
    spike_threshold: NonNegativeFloat = 0.0
    """A loss so many standard deviations above the mean of the last `spike_window` updates is a
    spike; 0: none is."""
    spike_window: Annotated[int, Field(ge=8)] = 128
    on_spike: Literal["record", "skip", "rollback"] = "record"
    """A spike is recorded, or its update left out too, or the run goes back too."""
    check_replicas_every: NonNegativeInt = 500
    """Steps between two comparisons of the weights that ranks hold alike; 0: never."""


def _trackers(*names: str) -> list[PartSection]:
    return [PartSection(name=name) for name in names]


class MonitorConfig(Section):
    """What is shown of a run beside its losses."""

    norms_by_group: bool = False
    """Gradient norm, weight norm and update-to-weight ratio of each block and table."""
    histograms_every: NonNegativeInt = 0
    """Steps between two histograms of the weights in TensorBoard; 0: none."""
    num_samples: NonNegativeInt = 0
    """Texts that the model writes at each validation, if its objective can."""
    max_new_tokens: PositiveInt = 64
    """Longest of them, in tokens."""
    profile_from: NonNegativeInt = 0
    """First step of which torch's profiler writes a trace; 0: none."""
    profile_steps: PositiveInt = 3
    """How many steps it traces."""
    trackers: Parts = Field(default_factory=lambda: _trackers("jsonl", "tensorboard"))
    """Where records go. `jsonl`: metrics.jsonl, which is always written. `tensorboard`: its files.
    `prometheus`: a file in Prometheus' text format at its `path`, for node_exporter's textfile
    collector."""
    peak_flops: PositiveFloat | None = None
    """FLOPs a second of one rank's device, in the precision of the run, for the utilization; by
    default that of its data sheet, if it is known."""

    @field_validator("trackers")
    @classmethod
    def _complete(cls, trackers: list[PartSection]) -> list[PartSection]:
        named = any(tracker.name == "jsonl" for tracker in trackers)
        return trackers if named else [*trackers, *_trackers("jsonl")]


class BranchConfig(Section):
    """The state of another run that this one begins with."""

    run: Place
    """Its folder."""
    step: PositiveInt | None = None
    """Its checkpoint after so many steps; by default its newest."""
