"""Checkpoints: written atomically, verified when read, loaded on any number of ranks."""

from megapt.checkpoint.events import Event
from megapt.checkpoint.finding import branch_start
from megapt.checkpoint.state import Saved, TrainerState, steps_saved
from megapt.checkpoint.store import Checkpoints
from megapt.checkpoint.weights import load_weights

__all__ = [
    "Checkpoints",
    "Event",
    "Saved",
    "TrainerState",
    "branch_start",
    "load_weights",
    "steps_saved",
]
