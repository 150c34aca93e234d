"""The update does not depend on how the global batch was split."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from megapt.config import RunConfig
from megapt.objectives import OBJECTIVES
from tests.ranks import run_ranks
from tests.training.runs import assert_follows, records_of, run_config, train

# Windows without a pair (nsp, bert) and documents without a class (msc) leave a head without any
# target in some micro-batches, so a mean over micro-batches would differ from that over targets.
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {"pair_weight": 2.0},
    "msc": {"unlabeled": True, "class_loss_weight": 0.5},
    "mixture": {
        "members": {"arlm": {"name": "arlm"}, "bert": {"name": "bert"}},
        "weights": {"arlm": 2.0},
        "schedule": [{"step": 4, "weights": {"arlm": 0.5}}],
    },
}
SPLITS = [(1, 1), (1, 8), (2, 1), (2, 4)]
# Every split for those that differ in kind, the two farthest from the reference for the others.
CASES = [
    (name, split)
    for name in sorted(OBJECTIVES)
    for split in (SPLITS if name in ("arlm", "nsp", *SETTINGS) else [(1, 8), (2, 1)])
]


def config_of(corpus: Path, output: Path, objective: str, micro_batch_size: int) -> RunConfig:
    return run_config(
        corpus,
        output,
        objective={"name": objective, **SETTINGS.get(objective, {})},
        training={"micro_batch_size": micro_batch_size},
    )


@pytest.fixture(scope="module")
def reference(
    partly_labeled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunConfig]:
    """Train an objective on one rank in micro-batches of two, once."""

    @cache
    def run(objective: str) -> RunConfig:
        folder = tmp_path_factory.mktemp("split")
        config = config_of(partly_labeled, folder / "run", objective, 2)
        run_ranks(1, train, config)
        return config

    return run


@pytest.mark.parametrize(("objective", "split"), CASES)
def test_any_split_gives_the_same_updates(
    reference: Callable[[str], RunConfig],
    partly_labeled: Path,
    tmp_path: Path,
    objective: str,
    split: tuple[int, int],
) -> None:
    world, micro_batch_size = split
    config = config_of(partly_labeled, tmp_path / "run", objective, micro_batch_size)
    run_ranks(world, train, config)
    assert_follows(records_of(config), records_of(reference(objective)))
