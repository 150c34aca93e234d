"""The order of the rows of the two fused matrices of a block.

The order makes a split by head a slice of rows:

- `attention.qkv` is [key-value groups, queries + 2, head width]: the queries of a group, its key,
  its value;
- `feedforward.up` of SwiGLU is [blocks, 2, intermediate / blocks]: a part of the gate, and the same
  part of the value. Every common divisor of heads and intermediate divides the number of blocks.

The old order was [3, heads, head width] and [2, intermediate]. Initial weights are drawn in the old
order, so that a seed gives the same function, and checkpoints of format 1 use it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from megapt.config import ModelConfig

QUERIES = 1
"""Queries of a group; each head has its own key and value."""

_FUSED = re.compile(r"(.*\b(attention\.qkv|feedforward\.up))\.(?:weight|bias)")


def feedforward_blocks(config: ModelConfig) -> int:
    """Return the number of blocks of gate and value in SwiGLU's fused matrix."""
    return math.gcd(config.num_heads, config.intermediate_size)


def fused_rows(shapes: Mapping[str, Sequence[int]], config: ModelConfig) -> dict[str, Tensor]:
    """Return the index in the old order of each row of a fused matrix, and of its bias.

    `old[rows]` is in the new order, and `new[rows.argsort()]` in the old one.

    Args:
        shapes: shapes of all parameters by name; those of a generator determine its width.
        config: the model's configuration.

    Returns:
        Name -> int64 [rows], for the parameters whose row order has changed.
    """
    rows = {}
    for name, shape in shapes.items():
        found = _FUSED.fullmatch(name)
        if found is None:
            continue
        [module, matrix] = found.groups()
        hidden = shapes[f"{module}.weight"][1]
        # A generator has heads of the trunk's width, or a single narrower one.
        heads = max(hidden // (config.hidden_size // config.num_heads), 1)
        old = torch.arange(shape[0])
        if matrix == "attention.qkv":
            rows[name] = old.view(3, heads, -1).transpose(0, 1).flatten()
        elif config.activation == "swiglu":
            blocks = math.gcd(heads, shape[0] // 2)
            rows[name] = old.view(2, blocks, -1).transpose(0, 1).flatten()
    return rows
