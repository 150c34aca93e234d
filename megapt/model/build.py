"""Builds the model of a run from its configuration."""

from __future__ import annotations

from collections.abc import Sequence

from megapt.config import RunConfig
from megapt.data import RESERVED, HeadSpec
from megapt.model.attention import Backend, GroupedAttention
from megapt.model.pretraining import PretrainingModel
from megapt.model.sequence import SequenceGroup


def build_model(
    config: RunConfig,
    heads: Sequence[HeadSpec],
    vocabulary: int,
    attention: type[Backend] = GroupedAttention,
    sequence: SequenceGroup = SequenceGroup(),
) -> PretrainingModel:
    """Return the model of a run, with the initial weights that the seed gives.

    Args:
        config: the run's configuration.
        heads: the heads of its objective.
        vocabulary: number of token ids.
        attention: attention backend.
        sequence: the ranks that share the positions of each batch.
    """
    return PretrainingModel(
        config.model,
        heads,
        loss=config.loss,
        vocabulary=vocabulary,
        max_positions=config.data.window + RESERVED,
        seed=config.seed,
        attention=attention,
        recompute=config.training.recompute,
        recompute_every=config.training.recompute_every,
        sequence=sequence,
    )
