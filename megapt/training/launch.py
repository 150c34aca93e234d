"""Start of a training job on the rank of this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from megapt.config import CompareConfig, Origins, RunConfig, load_config
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import start_ranks
from megapt.errors import ConfigError
from megapt.resilience.stopping import exit_on_request
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer

ConfigT = TypeVar("ConfigT", RunConfig, CompareConfig)


def arguments(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return (config file, overrides) from the words that a launcher passes.

    Raises:
        ConfigError: if no config file is given.
    """
    words = [word for word in argv if not word.startswith("--local_rank")]
    if not words:
        raise ConfigError("command line: give a config file, then key=value words")
    return words[0], words[1:]


def begin(
    schema: type[ConfigT], config_file: str, overrides: Sequence[str]
) -> tuple[ConfigT, Origins, Ranks]:
    """Load the configuration and connect the ranks.

    Under a launcher the ranks connect first. The launcher ends all ranks as soon as one fails, so
    rank 0, which prints the errors of all, might end before it has printed one. If rank 0 cannot
    connect, the launcher ends the other ranks with SIGTERM.

    Raises:
        ConfigError: on every rank, if the configuration is wrong.
    """
    if "RANK" not in os.environ:
        config, origins = load_config(schema, config_file, overrides)
        return config, origins, start_ranks()
    with exit_on_request():
        ranks = start_ranks()
    with ranks.shared_errors():
        config, origins = load_config(schema, config_file, overrides)
    return config, origins, ranks


def train(config_file: str, overrides: Sequence[str]) -> None:
    """Train the run that the file describes, on the rank of this process."""
    config, origins, ranks = begin(RunConfig, config_file, overrides)
    trainer = Trainer(prepare(config, ranks, origins))
    if trainer.folder.finished and ranks.main:
        print(f"{trainer.folder.folder}: already finished; nothing to do")
        return
    summary = trainer.train()
    if ranks.main:
        loss = summary["validation"]["loss"]
        print(
            f"{trainer.folder.folder}: {summary['steps']} steps, validation loss {loss:.4f}, "
            f"{summary['tokens_per_second']:,.0f} tokens/s"
        )
