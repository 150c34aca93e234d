"""The parameter groups of the optimizer: weight decay, learning rate factor and update rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from megapt.config import OptimizerConfig

_BLOCK = re.compile(r"(.*?)blocks\.(\d+)\.")


def _kind(name: str, parameter: nn.Parameter) -> str:
    """Return the kind of a parameter: `matrices`, or one that `OptimizerConfig.no_decay` names."""
    if name.endswith(("embeddings.positions.weight", "embeddings.segments.weight")):
        return "positions"
    if name.endswith("embeddings.words.weight"):
        return "words"
    if parameter.ndim > 1:
        return "matrices"
    owner = name.split(".")[-2:-1]
    return "norms" if owner and owner[0].endswith("norm") else "biases"


def in_block(name: str) -> bool:
    """Return whether a parameter is inside a block, not in embeddings or heads."""
    return _BLOCK.match(name) is not None


def rate_factors(names: list[str], layer_decay: float) -> dict[str, float]:
    """Return the factor of each parameter's learning rate, by name.

    It is layer_decay^(n - i) in block i of n, counted from 0, layer_decay^(n + 1) in the
    embeddings, and 1 after the blocks (Bao et al. 2022, BEiT). A generator has its own blocks.
    """
    blocks: dict[str, int] = {}
    for name in names:
        if found := _BLOCK.match(name):
            blocks[found[1]] = max(blocks.get(found[1], 0), int(found[2]) + 1)
    factors = {}
    for name in names:
        below = 0
        if found := _BLOCK.match(name):
            below = blocks[found[1]] - int(found[2])
        elif "embeddings." in name:
            below = blocks.get(name.split("embeddings.")[0], 0) + 1
        factors[name] = layer_decay**below
    return factors


def parameter_groups(
    model: nn.Module,
    config: OptimizerConfig,
    takes: Callable[[str, nn.Parameter], bool] = lambda name, parameter: False,
) -> list[dict[str, Any]]:
    """Return the parameters in groups with the same weight decay, rate and update rule.

    Args:
        model: model that has the parameters.
        config: which parameters decay, and how rates fall from block to block.
        takes: whether the optimizer's own rule updates a parameter.

    Returns:
        Groups for PyTorch's optimizers, with `params` and `weight_decay`. In addition: `factor`, of
        the learning rate; `muon`, the answer of `takes` (checkpoints store it under this name); and
        `shapes`, of the parameters.
    """
    parameters = dict(model.named_parameters())
    factors = rate_factors(list(parameters), config.layer_decay)
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        undecayed = _kind(name, parameter) in config.no_decay
        own = takes(name, parameter)
        groups.setdefault((undecayed, own, factors[name]), []).append(parameter)
    return [
        {
            "params": members,
            "weight_decay": 0.0 if undecayed else config.weight_decay,
            "factor": factor,
            "muon": own,
            "shapes": [tuple(member.shape) for member in members],
        }
        for (undecayed, own, factor), members in sorted(groups.items(), key=lambda item: item[0])
    ]
