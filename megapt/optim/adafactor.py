"""Adafactor (Shazeer & Stern 2018): the second moment, factored into rows and columns."""

from __future__ import annotations

from typing import ClassVar

import torch

from megapt.config import Precision
from megapt.distributed.ranks import Ranks
from megapt.optim.base import Groups, OptimizerFactory


class Adafactor(OptimizerFactory):
    """PyTorch's Adafactor. Its rate is relative to the weights, and it needs whole matrices."""

    name = "adafactor"
    state_bytes = 4
    zero_stages = (0,)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)

    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer; see `OptimizerFactory`."""
        return torch.optim.Adafactor(groups, lr=self.settings.lr)
