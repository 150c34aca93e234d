"""The sections `model` and `loss`."""

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
    """Number of blocks."""
    hidden_size: PositiveInt
    """Width of the hidden states, a multiple of num_heads."""
    num_heads: PositiveInt
    """Number of attention heads."""
    intermediate_size: PositiveInt
    """Inner width of the feed-forward layers."""
    activation: Literal["relu", "gelu", "swiglu"] = "swiglu"
    """Activation of the feed-forward layers. `swiglu` has three matrices, the others two."""
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    """Type of all normalization layers."""
    norm_position: Literal["pre", "post"] = "pre"
    """`pre`: norms before each sublayer, and one after the last block. `post`: norms after each
    residual sum, and one on the embeddings."""
    norm_eps: PositiveFloat = 1e-5
    """Epsilon of the norms."""
    positions: Literal["learned", "sinusoidal", "rotary"] = "rotary"
    """Position encoding: a learned table, sinusoids, or rotated queries and keys (RoPE)."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""
    num_segments: NonNegativeInt = 2
    """Rows of the segment (sentence) embedding table, at least the number of segments that the
    objective distinguishes. 0: no table."""
    bias: bool = False
    """Whether the linear layers, LayerNorm and the vocabulary projection have biases."""
    tie_word_embeddings: bool = True
    """Whether the vocabulary projection uses the word embedding matrix."""
    token_head: Literal["linear", "transform"] = "linear"
    """Head that predicts tokens. `linear`: only the vocabulary projection. `transform`: a dense
    layer, GELU and a norm before it, as in BERT."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability on embeddings, attention weights and sublayer outputs."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of the initial weight matrices; docs/model.md lists the exceptions."""

    @model_validator(mode="after")
    def _head_width(self) -> ModelConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} should be a multiple of num_heads {self.num_heads}"
            )
        if self.positions == "rotary" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"rotary positions need an even head width, but hidden_size/num_heads is "
                f"{self.hidden_size // self.num_heads}"
            )
        return self


class LossConfig(Section):
    """Extra terms of the loss of heads over the vocabulary. Reported losses exclude them."""

    z_loss: NonNegativeFloat = 0.0
    """Factor of log^2 Z, where Z is the softmax denominator (Chowdhery et al. 2022, section 5). 0:
    none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread over all tokens (Szegedy et al. 2016, section 7). 0: none."""
