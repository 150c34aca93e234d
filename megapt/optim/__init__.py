"""The optimizers, one file each, their parameter groups, and the schedule of the learning rate."""

from megapt.optim.base import Groups, OptimizerFactory
from megapt.optim.optimizers import OPTIMIZERS, check_optimizer, find_optimizer, make_optimizer

__all__ = [
    "OPTIMIZERS",
    "Groups",
    "OptimizerFactory",
    "check_optimizer",
    "find_optimizer",
    "make_optimizer",
]
