"""`torch.compile` of the blocks and the losses: modules of one shape share compiled code."""

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
    """Refuse to compile where no compiler can build the generated code.

    Raises:
        ConfigError: if there is no C++ compiler, or for CUDA no C compiler, which Triton needs.
    """
    variable, usual = ("CXX", ["g++"]) if device.type == "cpu" else ("CC", ["gcc", "clang"])
    names = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f"training.compile: there is no compiler {' or '.join(names)} here; install one, name "
            f"it in the environment variable {variable}, or set training.compile: false"
        )


def compile_model(model: nn.Module) -> None:
    """Enable compilation of all blocks, including those of generators, and of the losses.

    Compilation happens when a module first runs.

    Blocks of one width share their code. The number of positions in it is symbolic, so a new batch
    does not trigger a recompilation. Attention is excluded: its kernels are compiled already, and
    its shapes change with every batch.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.attend = torch.compiler.disable(module.attend)  # type: ignore[no-untyped-call]
        elif isinstance(module, Block):
            module.compile(dynamic=True)
        elif isinstance(module, VocabularyProjection):
            module.compiled = True
