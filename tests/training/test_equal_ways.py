"""However a run is computed, it is the same training."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch._dynamo.utils import counters

from megapt.config import Origins, RunConfig, check_groups
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from tests.ranks import run_ranks
from tests.training.runs import (
    assert_follows,
    last_weights,
    merged,
    records_of,
    run_config,
    train,
    train_with_signal,
)

# Four heads, so that half the width of them is left to two ranks in a generator too.
COMMON: dict[str, Any] = {
    "model": {"num_layers": 2, "num_heads": 4},
    "training": {"budget": {"amount": 2300.0}},
}
# Each parameter is gathered whenever it is needed, as in a large model.
RELEASED = {"stage3_param_persistence_threshold": 0, "stage3_max_reuse_distance": 0}
ELECTRA = {"name": "electra", "generator_size": 0.5}


def way(world: int = 1, **sections: Any) -> tuple[int, dict[str, Any]]:
    return world, sections


def sequence(stage: int) -> dict[str, Any]:
    return {"sequence_parallel_size": 2, "zero_stage": stage}


WAYS = {
    "micro-batches of 1": way(training={"micro_batch_size": 1}),
    "micro-batches of 4": way(training={"micro_batch_size": 4}),
    "recompute full": way(training={"recompute": "full"}),
    "recompute every second": way(training={"recompute": "full", "recompute_every": 2}),
    "recompute selective": way(training={"recompute": "selective"}),
    "recompute selective, stage 3": way(
        2, training={"recompute": "selective"}, parallel={"zero_stage": 3}
    ),
    "sequence": way(2, parallel=sequence(0)),
    "sequence, stage 1": way(2, parallel=sequence(1)),
    "sequence, stage 2": way(4, parallel=sequence(2), training={"micro_batch_size": 1}),
    "sequence, stage 3": way(4, parallel=sequence(3)),
    "sequence, rows, recompute full, stage 3": way(
        2,
        parallel=sequence(3),
        training={"recompute": "full", "attention": "rows", "row_length": 101},
    ),
    "optimizer offloaded": way(2, parallel={"zero_stage": 2, "offload_optimizer": "cpu"}),
    "parameters offloaded": way(
        2, parallel={"zero_stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"}
    ),
}
OTHERS = {
    "sequence": ("bert", "mgm", "electra"),
    "sequence, stage 2": ("mgm",),
    "sequence, stage 3": ("bert", "electra"),
    "sequence, rows, recompute full, stage 3": ("mgm",),
    "recompute selective, stage 3": ("electra",),
}
CASES = [(objective, name) for name in WAYS for objective in ("arlm", *OTHERS.get(name, ()))]


def config_of(corpus: Path, output: Path, objective: str, sections: Mapping[str, Any]) -> RunConfig:
    named = ELECTRA if objective == "electra" else {"name": objective}
    return run_config(corpus, output, **merged({**COMMON, "objective": named}, sections))


@pytest.fixture(scope="module")
def plain(
    corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunConfig]:
    """Train an objective on one rank as plainly as it goes, once."""

    @cache
    def run(objective: str) -> RunConfig:
        output = tmp_path_factory.mktemp("plain") / "run"
        config = config_of(corpus_folder, output, objective, {})
        run_ranks(1, train, config)
        return config

    return run


def assert_same(found: RunConfig, expected: RunConfig) -> None:
    assert_follows(records_of(found), records_of(expected))
    mine, theirs = last_weights(found), last_weights(expected)
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        assert weight.numpy() == pytest.approx(theirs[name].numpy(), rel=1e-4, abs=2e-6), name


@pytest.mark.parametrize(("objective", "name"), CASES)
def test_every_way_is_the_plain_run(
    plain: Callable[[str], RunConfig],
    corpus_folder: Path,
    tmp_path: Path,
    objective: str,
    name: str,
) -> None:
    world, sections = WAYS[name]
    config = config_of(corpus_folder, tmp_path / "run", objective, sections)
    run_ranks(world, train, config)
    assert_same(config, plain(objective))


@pytest.mark.parametrize("recompute", ["full", "selective"])
def test_recomputed_dropout_is_the_same_to_the_bit(
    corpus_folder: Path, tmp_path: Path, recompute: str
) -> None:
    configs = [
        run_config(
            corpus_folder,
            tmp_path / kind,
            model={"num_layers": 2, "dropout": 0.2},
            training={"recompute": kind},
        )
        for kind in ("none", recompute)
    ]
    for config in configs:
        run_ranks(1, train, config)
    found, expected = map(last_weights, configs)
    for name, weight in found.items():
        assert weight.equal(expected[name]), name


def train_in_two(ranks: Ranks, config: RunConfig) -> int:
    """Train, stopped once; return how many modules DeepSpeed takes to be running at the end."""
    assert train_with_signal(ranks, config, signal.SIGTERM, step=3) is None
    train(ranks, config)
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    return len(FWD_MODULE_STACK)


@pytest.mark.parametrize("zero", [{}, RELEASED], ids=["all kept", "all released"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_shards_are_the_same_to_the_bit_resumed_too(
    corpus_folder: Path, tmp_path: Path, precision: str, zero: dict[str, int]
) -> None:
    configs = {
        kind: config_of(
            corpus_folder,
            tmp_path / kind,
            "arlm",
            {
                "training": {"recompute": kind, "precision": precision},
                "parallel": {"zero_stage": 3},
                "deepspeed": {"zero_optimization": zero},
            },
        )
        for kind in ("none", "full", "selective")
    }
    run_ranks(2, train, configs["none"])
    expected = last_weights(configs["none"])
    for kind in ("full", "selective"):
        running = run_ranks(2, train_in_two, configs[kind])
        assert max(running) < 3, "what a recomputation leaves half done is forgotten"
        found = last_weights(configs[kind])
        for name, weight in found.items():
            assert weight.equal(expected[name]), (kind, name)


def train_compiled(ranks: Ranks, config: RunConfig) -> int:
    """Train, and return how many graphs were compiled."""
    train(ranks, config)
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    "parallel",
    [
        {"zero_stage": 1},
        pytest.param({"zero_stage": 3}, marks=pytest.mark.slow),
        pytest.param({"sequence_parallel_size": 2}, marks=pytest.mark.slow),
    ],
    ids=["stage 1", "stage 3", "sequence"],
)
def test_compiled_blocks_train_alike(
    plain: Callable[[str], RunConfig],
    corpus_folder: Path,
    tmp_path: Path,
    parallel: dict[str, Any],
) -> None:
    training = {"compile": True, "recompute": "full", "recompute_every": 2}
    sections = {"parallel": parallel, "training": training}
    config = config_of(corpus_folder, tmp_path / "run", "arlm", sections)
    graphs = run_ranks(2, train_compiled, config, timeout=300.0)
    assert min(graphs) >= 8, "four parts of a block, in training and in validation"
    assert_same(config, plain("arlm"))


@pytest.mark.parametrize(("world", "what"), [(3, "3 ranks"), (4, "2 heads")])
def test_sequence_groups_divide_ranks_and_heads(
    corpus_folder: Path, tmp_path: Path, world: int, what: str
) -> None:
    size = 2 if world == 3 else 4
    config = run_config(corpus_folder, tmp_path / "run", parallel={"sequence_parallel_size": size})
    with pytest.raises(ConfigError, match=f"^parallel.sequence_parallel_size: .* {what}") as error:
        check_groups(config, world, Origins())
    assert "\n" not in str(error.value)
