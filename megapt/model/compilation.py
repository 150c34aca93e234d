"""`torch.compile` of the blocks and the losses: one code for all of a kind, compiled once."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from megapt.errors import ConfigError
from megapt.model.attention import Attention
from megapt.model.linear_cross_entropy import VocabularyProjection
from megapt.model.trunk import Block


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where nothing makes a library of the generated code.

    Raises:
        ConfigError: if there is no C++ compiler; for CUDA, Triton needs one for C.
    """
    variable, usual = ("CXX", ["g++"]) if device.type == "cpu" else ("CC", ["gcc", "clang"])
    names = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f"training.compile: there is no compiler {' or '.join(names)} here; install one, name "
            f"it in the environment variable {variable}, or set training.compile: false"
        )


def compile_model(model: nn.Module) -> None:
    """Have all blocks of a model compiled, those of generators too, and what follows the logits.

    That happens when they first run.

    All of one width share their code, in which the number of positions is a symbol: nothing is
    compiled anew for a new batch. Attention is called as it is; its kernels are compiled already,
    and its shapes are different in each batch.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.attend = torch.compiler.disable(module.attend)  # type: ignore[no-untyped-call]
        elif isinstance(module, Block):
            module.compile(dynamic=True)
        elif isinstance(module, VocabularyProjection):
            module.compiled = True
