"""Opening of a run folder for use: model, objective and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data_prep.errors import MissingPackageError, PrepError
from data_prep.tokenizers import Tokenizer, load_tokenizer
from megapt.checkpoint import load_weights
from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.data import Batch, Example, collate
from megapt.data.example import Ints
from megapt.errors import ConfigError, DamagedError
from megapt.model import PretrainingModel, build_model
from megapt.objectives import Objective


@dataclass(frozen=True)
class LoadedRun:
    """A trained run, ready for use."""

    folder: Path
    config: RunConfig
    objective: Objective
    model: PretrainingModel
    """In float32 and evaluation mode, on `device`."""
    tokenizer: Tokenizer
    step: int
    """Updates that the weights have received."""
    device: torch.device

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return the batch of these examples on the run's device, with targets by module name."""
        heads = {head.owner for head in self.objective.heads}
        pad = self.tokenizer.vocabulary.pad
        return collate(examples, pad=pad, heads=heads).widen().to(self.device)

    def check_length(self, text: Ints, what: str) -> None:
        """Check that a text has no more tokens than the run reads.

        Raises:
            ConfigError: if it has; the message calls the text `what`.
        """
        if len(text) > self.longest_text:
            raise ConfigError(
                f"the {what} has {len(text)} tokens; this run reads {self.longest_text} at most"
            )

    @property
    def longest_text(self) -> int:
        """Number of text tokens that fit the positions the model was trained on."""
        return self.config.data.window


def load_run(
    folder: str | Path, device: torch.device | None = None, *, trained: bool = True
) -> LoadedRun:
    """Open the newest checkpoint of a run.

    Args:
        folder: the run folder.
        device: device of the model; by default the first GPU, or the CPU without a GPU.
        trained: whether to load the weights of the checkpoint; if not, the model has the weights
            before the first update.

    Raises:
        ConfigError: if the folder holds no run, or no checkpoint yet, or if a package is missing.
        DamagedError: if a file of the run is missing or corrupt.
    """
    run = RunFolder(folder)
    config = run.load_config()
    try:
        tokenizer = load_tokenizer(run.folder)
    except MissingPackageError as error:
        raise ConfigError(str(error)) from None
    except PrepError as error:
        raise DamagedError(str(error)) from None
    objective = run.objective(config)
    model = build_model(config, objective.heads, tokenizer.vocabulary.size)
    step = load_weights(run.checkpoints, model, config.model) if trained else 0
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LoadedRun(
        run.folder, config, objective, model.to(device).eval(), tokenizer, step, device
    )
