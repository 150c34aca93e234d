"""Training through DeepSpeed: one run from its configuration to its checkpoints.

The names are imported when they are asked for: a rank hears signals before it imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from megapt.training.distributed import Ranks, start_ranks
    from megapt.training.exits import TrainingError
    from megapt.training.run_folder import RunFolder
    from megapt.training.stopping import RunInterrupted
    from megapt.training.trainer import Trainer

__all__ = ["Ranks", "RunFolder", "RunInterrupted", "Trainer", "TrainingError", "start_ranks"]

_PLACES = {
    "Ranks": "distributed",
    "RunFolder": "run_folder",
    "RunInterrupted": "stopping",
    "Trainer": "trainer",
    "TrainingError": "exits",
    "start_ranks": "distributed",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
