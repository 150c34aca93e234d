"""The parts that the configuration of a run names, found and checked for all commands alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from megapt.checkpoint.run_folder import objective_context
from megapt.config import (
    ClusterConfig,
    CompareConfig,
    Origins,
    RunConfig,
    check_batches,
    check_groups,
)
from megapt.data import AnyCorpus, BatchSchedule, Rows, Stream, TextFacts
from megapt.data.schedules import batch_schedule, length_schedule, training_stream
from megapt.data.window_lengths import LengthSchedule
from megapt.distributed.deepspeed_config import deepspeed_config, zero_stage
from megapt.distributed.mesh import Mesh
from megapt.distributed.ranks import Ranks
from megapt.evaluation.measures import find_measure
from megapt.model.attention import Backend, check_dropout, find_backend
from megapt.monitoring.trackers import Trackers, find_trackers
from megapt.objectives import Objective, build_objective
from megapt.optim import OptimizerFactory, check_optimizer, find_optimizer
from megapt.training.checks import (
    check_attention,
    check_generators,
    check_metric,
    check_segments,
    check_size,
    choose_rows,
)


@dataclass(frozen=True)
class RunParts:
    """The parts of a run. They fit each other."""

    config: RunConfig
    ranks: Ranks
    """Ranks of the job, in groups of `parallel.sequence_parallel_size`."""
    origins: Origins
    """Places of the settings, for error messages."""
    batches: BatchSchedule
    lengths: LengthSchedule
    optimizer: OptimizerFactory
    engine_settings: dict[str, Any]
    """DeepSpeed's configuration."""
    backend: type[Backend]
    trackers: Trackers
    objective: Objective
    rows: Rows | None
    stream: Stream | None
    """Training windows; None if this machine cannot read the corpus."""


def find_parts(
    config: RunConfig,
    ranks: Ranks,
    origins: Origins,
    corpus: TextFacts,
    path: str = "objective",
) -> RunParts:
    """Find the parts of a run, and refuse those that do not fit each other or these ranks.

    `train`, its dry run, `compare`, `plan` and the SLURM launcher all call it. The last two check
    runs for other machines, so this machine need not have the devices of the run.

    Args:
        config: configuration of the run.
        ranks: ranks of the job.
        origins: places of the settings, for error messages.
        corpus: opened corpus, or the known facts about one that cannot be read here.
        path: dotted path of the objective's section in the configuration.

    Raises:
        ConfigError: if the run is not possible; the message names the setting.
    """
    check_groups(config, ranks.world, origins)
    ranks = ranks.with_sequence_parallel(config.parallel.sequence_parallel_size)
    check_batches(config, ranks.world, origins)
    batches, lengths = batch_schedule(config, origins), length_schedule(config, origins)
    optimizer = find_optimizer(config, origins)
    check_optimizer(optimizer, config, zero_stage(config), origins)
    settings = deepspeed_config(config, ranks, origins)
    backend = find_backend(config, origins)
    check_dropout(backend, config.model, origins)
    trackers = find_trackers(config, origins)
    context = objective_context(corpus, config)
    objective = build_objective(config.objective, context, origins, path)
    check_attention(backend, config, objective, ranks, origins)
    check_segments(config, objective, origins)
    check_generators(config, objective, ranks, origins)
    check_metric(config, objective, origins)
    stream = None
    if isinstance(corpus, AnyCorpus):
        stream = training_stream(corpus, config)
        check_size(stream, config, batches, origins)
    return RunParts(
        config=config,
        ranks=ranks,
        origins=origins,
        batches=batches,
        lengths=lengths,
        optimizer=optimizer,
        engine_settings=settings,
        backend=backend,
        trackers=trackers,
        objective=objective,
        rows=choose_rows(config, objective, origins),
        stream=stream,
    )


def check_comparison(config: CompareConfig, origins: Origins) -> None:
    """Refuse wrong settings of a comparison itself; `find_parts` checks its members.

    Raises:
        ConfigError: if a setting is wrong; the message says what would be right.
    """
    if config.data.mixture is not None:
        raise origins.error("data.mixture", "a comparison reads one corpus; name data.corpus")
    for number, section in enumerate(config.measures):
        find_measure(section, origins, f"measures.{number}")


def first_rank(cluster: ClusterConfig) -> Ranks:
    """Return rank 0 of a job on a cluster, without starting the job."""
    device = torch.device("cuda" if cluster.gpus_per_node else "cpu")
    return Ranks(0, Mesh(cluster.ranks), device)
