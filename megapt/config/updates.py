"""How the weights are updated: optimizer, schedules, budget, batch."""

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
    """The optimizer; by default AdamW (Loshchilov & Hutter 2019)."""

    name: str = "adamw"
    """`lion` (Chen et al. 2023) keeps one state instead of two, and wants a third of AdamW's rate
    and three times its decay. `muon` (Jordan et al. 2024) orthogonalizes the updates of the
    matrices inside blocks, and has AdamW for the rest, at the same rate; zero_stage 2 at most.
    `adafactor` (Shazeer & Stern 2018) keeps one number a row and a column, and its rate is
    relative to the weights; zero_stage 0 in fp32 alone."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    eps: PositiveFloat = 1e-8
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Of `muon`'s matrices."""
    weight_decay: NonNegativeFloat = 0.1
    no_decay: list[NoDecay] = Field(default_factory=lambda: list(_NO_DECAY))
    """What weight decay spares; `positions` are the tables of positions and segments, `words` the
    word embedding."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from a block to the one below it: layer_decay^(n - i) in block i
    of n, counted from 0, layer_decay^(n + 1) in the embeddings, 1 after the blocks (Bao et al.
    2022); 1: all learn alike."""
    max_grad_norm: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 switches clipping off."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay an update of an exponential moving average of the weights; at update t it is at most
    (1 + t) / (10 + t). With it, the average is what is validated and later used. 0: none."""


class BatchStageConfig(Section):
    """A global batch for the beginning of a run."""

    until: Annotated[float, Field(gt=0, lt=1)]
    """Share of the budget."""
    global_batch_size: PositiveInt
    """Windows an update."""


class WindowStageConfig(Section):
    """Shorter texts for the beginning of a run."""

    until: Annotated[float, Field(gt=0, lt=1)]
    """Share of the budget."""
    length: Annotated[int, Field(ge=16)]
    """Tokens, of which `data.window` is a multiple; each window is handed to the objective in
    parts of so many."""


class ScheduleConfig(Section):
    """What changes with the share of the budget that is spent."""

    name: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = "cosine"
    warmup_ratio: Fraction = 0.05
    """Share of the budget over which the rate rises linearly from 0."""
    min_lr_ratio: Fraction = 0.1
    """Rate at the end as a share of the peak (linear, cosine, wsd)."""
    decay_ratio: Fraction = 0.2
    """Share of the budget over which `wsd` (warm-up, stable, decay) falls."""
    decay_shape: Literal["linear", "sqrt"] = "linear"
    """How it falls: `sqrt` as 1 - sqrt(x), x being the share of the decay that is over."""
    batch_size_rampup: list[BatchStageConfig] = Field(default_factory=list)
    """Smaller batches at the beginning, in rising shares; after the last,
    `training.global_batch_size`. A stage ends with the first step that reaches its share. Needs
    a budget in raw tokens."""
    window_rampup: list[WindowStageConfig] = Field(default_factory=list)
    """Shorter texts at the beginning, in rising shares; after the last, whole windows. A step
    reads the same text all the same, and held-out windows stay whole. Needs a budget in raw
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
    """How much is spent, and counted in what."""

    axis: Axis = "raw_tokens"
    amount: PositiveFloat
    """Training ends with the first step that reaches this amount."""


class TrainingConfig(Section):
    """How the updates are computed."""

    budget: BudgetConfig
    global_batch_size: PositiveInt = 64
    """Windows an update, over all ranks."""
    micro_batch_size: PositiveInt = 8
    """Windows that one rank holds at once; the rest of its share is accumulated."""
    precision: Precision = "fp32"
    """Of weights and activations. With bf16 and fp16 the optimizer keeps float32 weights; fp16
    scales the loss, and needs a GPU."""
    attention: Part = PartSection(name="grouped")
    """How attention is computed; all give the same result. `grouped`: on examples of like length
    side by side, everywhere. `rows`: on whole rows under a mask. `flex`: FlexAttention, compiled
    on CUDA. `varlen`: FlashAttention's variable-length kernels, on CUDA, not for prefixes."""
    row_length: NonNegativeInt = 0
    """Positions of the rows that examples are packed into, so that shapes stay fixed; 0 lays them
    end to end without padding."""
    open_rows: PositiveInt = 16
    """Rows among which an example finds its place: the look-ahead of the packing."""
    recompute: Recompute = "none"
    """What the backward pass computes again instead of keeping it: nothing, whole blocks, or all
    of a block but its matrix products and attention. Results are the same to the bit."""
    recompute_every: PositiveInt = 1
    """Of so many blocks one is computed again."""
    compile: bool = False
    """Whether the blocks are compiled by `torch.compile`, with the first batch; needs a C++
    compiler. Dropout then draws other masks."""
    deterministic: bool = False
    """Only kernels that give the same bits every time; slower on CUDA, and no difference on a
    CPU."""
    validate_every: NonNegativeInt = 100
    """Steps between two validations; 0 validates at the end alone."""
    validation_windows: PositiveInt = 128
    """Held-out windows a validation; all of them if the split has fewer."""
    log_every: PositiveInt = 10
    """Steps between two records of training."""
