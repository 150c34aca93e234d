"""What an optimizer is to a run: where it can run, what it keeps, and how it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from torch import nn

from megapt.config import OptimizerConfig, Precision, RunConfig, Section
from megapt.distributed.ranks import Ranks

Groups = list[dict[str, Any]]
"""Parameter groups of torch's optimizers; see `parameter_groups`."""


class OptimizerFactory(ABC):
    """Base of all optimizers. A subclass is one file of this folder; its `name` registers it.

    Args:
        settings: the section `optimizer`.
        own: those of its settings that only this optimizer has, as its `Config` checked them.
    """

    name: ClassVar[str]
    """What users type."""
    Config: ClassVar[type[Section]] = Section
    """Settings of its own, beside those of the section `optimizer`."""
    state_bytes: ClassVar[int]
    """Of the states of one parameter."""
    update_bytes: ClassVar[int] = 8
    """That an update takes for a while, for each element of the tensor that it updates."""
    zero_stages: ClassVar[Collection[int]] = (0, 1, 2, 3)
    """At which it can run. At 1 and above it gets flat parts of groups of parameters."""
    precisions: ClassVar[Collection[Precision]] = ("fp32", "bf16", "fp16")
    offloads: ClassVar[bool] = True
    """Whether it can run on the CPU for parameters that compute elsewhere."""

    def __init__(self, settings: OptimizerConfig, own: Any) -> None:
        self.settings = settings
        self.own = own

    def problem(self, config: RunConfig, stage: int) -> str:
        """Return what else forbids this optimizer in a run, and what would be right; else "".

        Args:
            config: of the run.
            stage: of ZeRO that is run.
        """
        return ""

    def takes(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter is updated by this optimizer's own rule.

        What it does not take is in groups apart, whose `muon` is false.
        """
        return False

    @abstractmethod
    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return torch's optimizer. All its states are tensors shaped as the parameter, or counts.

        Args:
            groups: of parameters; their `lr` is set before every update.
            ranks: of the job.
            offloaded: whether the parameters are on the CPU, though they compute elsewhere.
        """
