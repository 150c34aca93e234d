"""Training through DeepSpeed: one run from its configuration to its checkpoints."""

from megapt.training.distributed import Ranks, start_ranks
from megapt.training.run_folder import RunFolder
from megapt.training.stopping import RunInterrupted
from megapt.training.trainer import Trainer, TrainingError

__all__ = ["Ranks", "RunFolder", "RunInterrupted", "Trainer", "TrainingError", "start_ranks"]
