"""Adafactor (Shazeer & Stern 2018): one number a row and a column in place of the second moment."""

from __future__ import annotations

from typing import ClassVar

import torch

from megapt.config import Precision
from megapt.distributed.ranks import Ranks
from megapt.optim.base import Groups, OptimizerFactory


class Adafactor(OptimizerFactory):
    """torch's. Its rate is relative to the weights, and rows and columns are those of matrices."""

    name = "adafactor"
    state_bytes = 4
    zero_stages = (0,)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)

    def build(self, groups: Groups, ranks: Ranks, *, offloaded: bool) -> torch.optim.Optimizer:
        """Return torch's optimizer; see `OptimizerFactory`."""
        return torch.optim.Adafactor(groups, lr=self.settings.lr)
