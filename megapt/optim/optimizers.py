"""The registry of optimizers, and how the optimizer of a configuration is checked and built."""

from __future__ import annotations

import torch
from torch import nn

from megapt.config import Origins, RunConfig
from megapt.distributed.ranks import Ranks
from megapt.optim.base import OptimizerFactory
from megapt.optim.parameter_groups import parameter_groups
from megapt.registry import Registry, part_settings

OPTIMIZERS = Registry("optimizer", OptimizerFactory, "megapt.optim", "megapt.optimizers")  # type: ignore[type-abstract]


def find_optimizer(config: RunConfig, origins: Origins) -> OptimizerFactory:
    """Return the optimizer that the section `optimizer` names, its own settings checked.

    Raises:
        ConfigError: for an unknown name, a wrong setting, or a user's file that defines no
            optimizer.
    """
    section = config.optimizer
    kind = OPTIMIZERS.find(section.name, section.file, origins, "optimizer")
    return kind(section, part_settings(section, kind.Config, origins, "optimizer"))


def check_optimizer(
    factory: OptimizerFactory, config: RunConfig, stage: int, origins: Origins
) -> None:
    """Refuse an optimizer that cannot run with the settings of the run.

    Args:
        factory: the optimizer of the configuration.
        config: configuration of the run.
        stage: ZeRO stage of the run.
        origins: where each setting comes from, for error messages.

    Raises:
        ConfigError: if it cannot run; the message says which settings it supports.
    """
    parallel = config.parallel
    problem = ""
    if stage not in factory.zero_stages or config.training.precision not in factory.precisions:
        stages, precisions = (
            ", ".join(map(str, values)) for values in (factory.zero_stages, factory.precisions)
        )
        problem = f"runs at parallel.zero_stage {stages} and training.precision {precisions}"
    elif parallel.offload_optimizer != "none" and not factory.offloads:
        problem = "runs only on the ranks' devices; set parallel.offload_optimizer to none"
    problem = problem or factory.problem(config, stage)
    if problem:
        raise origins.error("optimizer.name", f"'{factory.name}' {problem}")
    if config.optimizer.ema_decay and parallel.offload_optimizer == "nvme":
        raise origins.error(
            "optimizer.ema_decay",
            "weights on NVMe are not averaged; offload the optimizer to 'cpu'",
        )


def make_optimizer(
    factory: OptimizerFactory, model: nn.Module, config: RunConfig, ranks: Ranks
) -> torch.optim.Optimizer:
    """Return the optimizer of the run, over the groups of `parameter_groups`.

    Args:
        factory: the optimizer of the configuration.
        model: the model of the run; its parameters may still move to another device.
        config: configuration of the run.
        ranks: ranks of the job.
    """
    groups = parameter_groups(model, config.optimizer, factory.takes)
    return factory.build(groups, ranks, offloaded=config.parallel.offload_optimizer != "none")
