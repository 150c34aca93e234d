"""The sections `optimizer`, `schedule` and `training`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from megapt.config.section import (
    Axis,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    Part,
    PartSection,
    PositiveFloat,
    PositiveInt,
    Section,
)

NoDecay = Literal["biases", "norms", "positions", "words"]
_NO_DECAY: tuple[NoDecay, ...] = ("biases", "norms", "positions")

Precision = Literal["fp32", "bf16", "fp16"]

Recompute = Literal["none", "full", "selective"]


class OptimizerConfig(PartSection):
    """The optimizer of a run."""

    name: str = "adamw"
    """`adamw`: AdamW (Loshchilov & Hutter 2019). `lion` (Chen et al. 2023): one state instead of
    two; use a third of AdamW's lr and three times its weight_decay. `muon` (Jordan et al. 2024):
    orthogonalized updates of the matrices in blocks, AdamW for the rest, with the same lr;
    zero_stage 0 to 2. `adafactor` (Shazeer & Stern 2018): one number per row and column; the
    step is min(lr, 1 / sqrt(update)) times the size of the weights; only zero_stage 0 in fp32."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    eps: PositiveFloat = 1e-8
    """Epsilon in the denominator of the update."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Momentum of `muon` for the matrices in blocks."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of all parameters that `no_decay` does not exclude. 0: none."""
    no_decay: list[NoDecay] = Field(default_factory=lambda: list(_NO_DECAY))
    """Parameters without weight decay. `positions` are the embedding tables of positions and
    segments, `words` is the word embedding."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate per layer: block i of n, counted from 0, learns at
    lr * layer_decay^(n - i), the embeddings at lr * layer_decay^(n + 1), the rest at lr (Bao et al.
    2022). 1: the same learning rate everywhere."""
    max_grad_norm: NonNegativeFloat = 1.0
    """Global gradient norm to which gradients are clipped. 0: no clipping."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per update of an exponential moving average of the weights, at most (1 + t) / (10 + t)
    after t updates. Validation and later use take the average. 0: no average."""


class BatchStageConfig(Section):
    """A stage of the batch-size ramp-up."""

    until: Annotated[float, Field(gt=0, lt=1)]
    """Share of the budget at which the stage ends."""
    global_batch_size: PositiveInt
    """Global batch in this stage, in windows per update."""


class WindowStageConfig(Section):
    """A stage of the window ramp-up."""

    until: Annotated[float, Field(gt=0, lt=1)]
    """Share of the budget at which the stage ends."""
    length: Annotated[int, Field(ge=16)]
    """Tokens of the parts in which the objective receives each window; it divides
    `data.window`."""


class ScheduleConfig(Section):
    """Schedules over the share of the budget that is spent."""

    name: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = "cosine"
    """Learning rate after the warm-up. `constant`: the peak. `linear`, `cosine`: decay to
    min_lr_ratio. `inverse_sqrt`: sqrt(warmup_ratio / share spent). `wsd` (warm-up, stable, decay):
    the peak, then decay to min_lr_ratio in the last decay_ratio of the budget."""
    warmup_ratio: Fraction = 0.05
    """Share of the budget with a linear warm-up from 0."""
    min_lr_ratio: Fraction = 0.1
    """Final learning rate divided by the peak (linear, cosine, wsd)."""
    decay_ratio: Fraction = 0.2
    """Last share of the budget, in which `wsd` decays."""
    decay_shape: Literal["linear", "sqrt"] = "linear"
    """Shape of the fall of `wsd` from the peak to `min_lr_ratio`; x goes from 0 to 1 during it.
    `linear`: as 1 - x. `sqrt`: as 1 - sqrt(x)."""
    batch_size_rampup: list[BatchStageConfig] = Field(default_factory=list)
    """Stages with smaller global batches at the beginning, in increasing shares; afterwards
    `training.global_batch_size`. A stage ends with the first step that reaches its share. Needs a
    budget in raw tokens."""
    window_rampup: list[WindowStageConfig] = Field(default_factory=list)
    """Stages with shorter texts at the beginning, in increasing shares; afterwards whole windows.
    Each step still reads the same text, and validation uses whole windows. Needs a budget in raw
    tokens."""

    @model_validator(mode="after")
    def _rising(self) -> ScheduleConfig:
        for name, stages in (
            ("batch_size_rampup", self.batch_size_rampup),
            ("window_rampup", self.window_rampup),
        ):
            shares = [stage.until for stage in stages]
            if shares != sorted(set(shares)):
                raise ValueError(f"{name} ends stages at {shares}; the shares should rise")
        return self


class BudgetConfig(Section):
    """The budget of a run: its unit and its amount."""

    axis: Axis = "raw_tokens"
    """Unit of the amount. `raw_tokens`: tokens of text read. `positions`: positions computed by the
    trunk. `targets`: predictions scored. `model_flops`: FLOPs. `wall_clock`: seconds of steps."""
    amount: PositiveFloat
    """Amount in this unit; training ends with the first step that reaches it."""


class TrainingConfig(Section):
    """How the updates are computed."""

    budget: BudgetConfig
    global_batch_size: PositiveInt = 64
    """Windows per update, over all ranks."""
    micro_batch_size: PositiveInt = 8
    """Windows per forward pass of a rank; gradients of several micro-batches are accumulated."""
    precision: Precision = "fp32"
    """Data type of weights, activations and gradients. With bf16 and fp16 the optimizer keeps
    float32 weights. fp16 scales the loss and needs a GPU."""
    attention: Part = PartSection(name="grouped")
    """Attention backend; all give the same result. `grouped`: batches of examples of similar
    length, on any device. `rows`: whole rows with a mask. `flex`: FlexAttention, compiled on CUDA.
    `varlen`: FlashAttention's variable-length kernels, on CUDA, not for prefix attention. A section
    with `file` names a custom backend."""
    row_length: NonNegativeInt = 0
    """Positions per row into which examples are packed, for fixed shapes. 0: examples are
    concatenated without padding."""
    open_rows: PositiveInt = 16
    """Number of open rows in which the packing may place an example."""
    recompute: Recompute = "none"
    """Activation checkpointing: what the backward pass recomputes. `none`: nothing. `full`: whole
    blocks. `selective`: blocks except matrix products and attention. Results are bitwise the
    same."""
    recompute_every: PositiveInt = 1
    """Recomputes one of this many blocks. 1: every block."""
    compile: bool = False
    """Whether `torch.compile` compiles the blocks at the first batch; needs a C++ compiler. Dropout
    then draws other masks."""
    deterministic: bool = False
    """Whether only kernels with bitwise reproducible results are used; slower on CUDA, without
    effect on a CPU."""
    validate_every: NonNegativeInt = 100
    """Steps between two validations. 0: only at the end."""
    validation_windows: PositiveInt = 128
    """Windows per validation; all if the validation split has fewer."""
    log_every: PositiveInt = 10
    """Steps between two training records."""
