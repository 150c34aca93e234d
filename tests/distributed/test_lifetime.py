"""What an engine and a process group leave behind in their process: nothing."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import distributed_c10d

from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import end_ranks, start_ranks
from tests.distributed.engines import Step, one_step, tiny_config, tiny_engine
from tests.ranks import run_ranks
from tests.training.runs import last_weights, run_config, train

AWAY = {"offload_optimizer": "cpu", "offload_param": "cpu"}


def alive_after_close(ranks: Ranks, config: RunConfig) -> list[str]:
    engine = tiny_engine(config, ranks)
    one_step(engine, ranks, Step(0), 0.05)
    watched: dict[str, weakref.ref[Any]] = {
        "module": weakref.ref(engine.module),
        "parameter": weakref.ref(next(engine.module.parameters())),
        "optimizer": weakref.ref(engine._engine.optimizer),
        "DeepSpeed's engine": weakref.ref(engine._engine),
    }
    engine.close()
    return [name for name, reference in watched.items() if reference() is not None]


@pytest.mark.parametrize(
    ("stage", "precision", "parallel"),
    [
        (0, "fp32", {}),
        (1, "bf16", {}),
        (2, "fp32", {}),
        (2, "bf16", {"offload_optimizer": "cpu"}),
        (3, "bf16", {}),
        (3, "fp32", AWAY),
    ],
)
def test_a_closed_engine_keeps_nothing_in_memory(
    stage: int, precision: str, parallel: dict[str, str]
) -> None:
    config = tiny_config(
        parallel={"zero_stage": stage, **parallel}, training={"precision": precision}
    )
    assert run_ranks(2, alive_after_close, config) == [[], []]


def global_state() -> dict[str, Any]:
    """What a run may change of its process."""
    cudnn = torch.backends.cudnn
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (cudnn.deterministic, cudnn.benchmark),
        "limits": (
            distributed_c10d.default_pg_timeout,
            distributed_c10d.default_pg_nccl_timeout,  # type: ignore[attr-defined]
        ),
        "signals": [signal.getsignal(number) for number in numbers],
        "variables": {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")},
    }


def train_twice(ranks: Ranks, first: RunConfig, second: RunConfig) -> None:
    end_ranks()
    before = global_state()
    train(start_ranks(), first)
    end_ranks()
    assert not torch.distributed.is_initialized()
    assert global_state() == before
    train(start_ranks(), second)
    gc.collect()


def test_a_second_run_in_one_process_is_as_the_first(corpus_folder: Path, tmp_path: Path) -> None:
    def config(name: str, **sections: Any) -> RunConfig:
        return run_config(corpus_folder, tmp_path / name, **sections)

    first = config(
        "first",
        parallel={"sequence_parallel_size": 2, "zero_stage": 2},
        training={"deterministic": True},
    )
    again, alone = (
        config(name, parallel={"sequence_parallel_size": 2}) for name in ("again", "alone")
    )
    run_ranks(2, train_twice, first, again)
    run_ranks(2, train, alone)
    weights = last_weights(again), last_weights(alone)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
