"""The Transformer, and the terms of its loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from megapt.config.section import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


class ModelConfig(Section):
    """The Transformer trunk (Vaswani et al. 2017, with the choices made since)."""

    num_layers: PositiveInt
    hidden_size: PositiveInt
    num_heads: PositiveInt
    intermediate_size: PositiveInt
    """Inner width of the feed-forward layers."""
    activation: Literal["relu", "gelu", "swiglu"] = "swiglu"
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    norm_position: Literal["pre", "post"] = "pre"
    norm_eps: PositiveFloat = 1e-5
    positions: Literal["learned", "sinusoidal", "rotary"] = "rotary"
    rope_theta: PositiveFloat = 10000.0
    num_segments: NonNegativeInt = 2
    """Rows of the segment (sentence) embedding table, no fewer than the segments that the objective
    tells apart; 0: there is no table."""
    bias: bool = False
    """Biases in the linear layers (and in LayerNorm)."""
    tie_word_embeddings: bool = True
    """The output projection of the vocabulary is the word embedding itself."""
    token_head: Literal["linear", "transform"] = "linear"
    """What stands on the trunk to predict tokens: the projection to the vocabulary alone, or
    BERT's dense layer, activation and norm before it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init_std: PositiveFloat = 0.02
    """Standard deviation of all weight matrices at the start."""

    @model_validator(mode="after")
    def _head_width(self) -> ModelConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} should be a multiple of num_heads {self.num_heads}"
            )
        if self.positions == "rotary" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"rotary positions need an even head width, hidden_size/num_heads is "
                f"{self.hidden_size // self.num_heads}"
            )
        return self


class LossConfig(Section):
    """Terms beside the cross-entropy of heads over the vocabulary. Reported losses are without."""

    z_loss: NonNegativeFloat = 0.0
    """Factor of log^2 Z, Z the softmax's denominator (Chowdhery et al. 2022, section 5)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that is spread over all tokens (Szegedy et al. 2016, section 7)."""
