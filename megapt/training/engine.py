"""The engine of a run: its model, its optimizer, and DeepSpeed around both."""

from __future__ import annotations

from collections.abc import Sequence

from megapt.config import Origins, RunConfig
from megapt.data import HeadSpec
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.model import build_model
from megapt.model.attention import find_backend
from megapt.model.compilation import compile_model
from megapt.model.sequence import SequenceGroup
from megapt.optim import make_optimizer


def make_engine(
    config: RunConfig, heads: Sequence[HeadSpec], vocabulary: int, ranks: Ranks, origins: Origins
) -> Engine:
    """Return the engine of a run at its beginning. All ranks call it.

    Args:
        config: of the run.
        heads: of its objective.
        vocabulary: number of token ids.
        ranks: of the job.
        origins: of the configuration, for errors.

    Raises:
        ConfigError: for settings that cannot run.
    """
    group = SequenceGroup.of(ranks)
    attention = find_backend(config, origins)
    model = build_model(config, heads, vocabulary, attention, group)
    if config.training.compile:
        compile_model(model)
    return Engine(model, make_optimizer(model, config, ranks, origins), config, ranks, origins)
