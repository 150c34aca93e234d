"""Initial weights, each drawn from a generator keyed by (seed, name of the parameter).

The trunk therefore starts from the same weights whatever its heads are, and whatever was built
before.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from megapt.config import ModelConfig
from megapt.data import derive_key
from megapt.model.layout import fused_rows


def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Set every parameter of `model`: matrices and embeddings normal, norms 1, biases 0.

    The standard deviation is `init_std`, with these exceptions:

    - In pre-norm stacks, it is divided by sqrt(2 layers) for the matrices that write into the
      residual stream, as in GPT-2 (Radford et al. 2019, section 2.3).
    - For the dense layers of heads and generators it is 1 / sqrt(input width), which preserves the
      scale of the input.
    - With sinusoidal positions, for words it is 1 / sqrt(hidden), since the trunk multiplies them
      by sqrt(hidden).

    Fused matrices are drawn in the old row order of `fused_rows`, so that a seed gives the same
    function in both orders; their biases are 0 in any order.
    """
    rows = fused_rows({name: p.shape for name, p in model.named_parameters()}, config)
    depth = math.sqrt(2 * config.num_layers) if config.norm_position == "pre" else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = config.init_std
            if name.endswith("dense.weight"):
                std = parameter.shape[1] ** -0.5
            if name.endswith(("attention.output.weight", "feedforward.down.weight")):
                std /= depth
            if name.endswith("embeddings.words.weight") and config.positions == "sinusoidal":
                std = config.hidden_size**-0.5
            generator = torch.Generator().manual_seed(derive_key(seed, name) >> 1)
            values = torch.empty(parameter.shape, dtype=torch.float32)
            values.normal_(0.0, std, generator=generator)
            parameter.copy_(values[rows[name]] if name in rows else values)
