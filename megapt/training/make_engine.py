"""The engine of a run: its model and its optimizer, wrapped by DeepSpeed."""

from __future__ import annotations

from megapt.distributed.engine import Engine
from megapt.model import build_model
from megapt.model.compilation import compile_model
from megapt.model.sequence import SequenceGroup
from megapt.optim import make_optimizer
from megapt.training.parts import RunParts


def make_engine(parts: RunParts) -> Engine:
    """Return the engine of a run with initial weights. All ranks call it together."""
    config, ranks, objective = parts.config, parts.ranks, parts.objective
    size, group = objective.vocabulary.size, SequenceGroup.of(ranks)
    model = build_model(config, objective.heads, size, parts.backend, group)
    if config.training.compile:
        compile_model(model)
    optimizer = make_optimizer(parts.optimizer, model, config, ranks)
    return Engine(model, optimizer, config, parts.engine_settings, ranks)
