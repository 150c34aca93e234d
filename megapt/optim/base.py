"""The base class of optimizers: where they can run, their memory, and how they are built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from torch import nn

from megapt.config import OptimizerConfig, Precision, RunConfig, Section
from megapt.distributed.ranks import Ranks

Groups = list[dict[str, Any]]
"""Parameter groups of PyTorch's optimizers; see `parameter_groups`."""


class OptimizerFactory(ABC):
    """Base class of all optimizers. A file of this folder defines a subclass; `name` registers it.

    Args:
        settings: the section `optimizer`.
        own: the settings that only this optimizer has, an instance of its `Config`.
    """

    name: ClassVar[str]
    """The name in configurations."""
    Config: ClassVar[type[Section]] = Section
    """Model of its own settings, in addition to those of the section `optimizer`."""
    state_bytes: ClassVar[int]
    """Bytes of the states of one parameter."""
    update_bytes: ClassVar[int] = 8
    """Temporary bytes during an update, per element of the tensor that is updated."""
    zero_stages: ClassVar[Collection[int]] = (0, 1, 2, 3)
    """ZeRO stages at which it can run. From stage 1 it gets flat partitions of parameter groups."""
    precisions: ClassVar[Collection[Precision]] = ("fp32", "bf16", "fp16")
    """Values of `training.precision` with which it can run."""
    offloads: ClassVar[bool] = True
    """Whether it can run on the CPU while the model runs on another device."""

    def __init__(self, settings: OptimizerConfig, own: Any) -> None:
        self.settings = settings
        self.own = own

    def problem(self, config: RunConfig, stage: int) -> str:
        """Return why else a run cannot use this optimizer, and what would be right; "" if it can.

        Args:
            config: configuration of the run.
            stage: ZeRO stage of the run.
        """
        return ""

    def takes(self, name: str, parameter: nn.Parameter) -> bool:
        """Return whether the optimizer's own rule updates a parameter.

        All other parameters come in separate groups, whose `muon` is false.
        """
        return False

    @abstractmethod
    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return a PyTorch optimizer. Its states are counts, or tensors of the parameter's shape.

        Args:
            groups: parameter groups; their `lr` is set before every update.
            ranks: ranks of the job.
            offloaded: whether the parameters are on the CPU while the model runs on another device.
        """
