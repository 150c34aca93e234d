"""Checkpoints: written whole or not at all, checked when they are read, loaded on any ranks."""

from megapt.training.checkpoints.events import Event
from megapt.training.checkpoints.finding import branch_start
from megapt.training.checkpoints.state import Saved, TrainerState, steps_saved
from megapt.training.checkpoints.store import CheckpointError, Checkpoints
from megapt.training.checkpoints.weights import load_weights

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Event",
    "Saved",
    "TrainerState",
    "branch_start",
    "load_weights",
    "steps_saved",
]
