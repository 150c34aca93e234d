"""Two ranks, under every ZeRO stage, compute what one rank computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megapt.config import Origins, RunConfig
from megapt.training.prepared import prepare
from tests.objectives.builders import preset
from tests.ranks import run_ranks
from tests.training.runs import (
    ALONE,
    assert_follows,
    last_weights,
    records_of,
    run_config,
    train,
)

# Every objective, every stage, and every stage with two heads.
CASES = [
    ("arlm", 0),
    ("mlm", 1),
    ("msc", 2),
    ("mgm", 3),
    ("nsp", 1),
    ("bert", 0),
    ("bert", 1),
    ("bert", 2),
    ("bert", 3),
    ("electra", 0),
    ("electra", 1),
    ("electra", 2),
    ("electra", 3),
    ("mixture", 3),
]


@pytest.mark.parametrize(("objective", "stage"), CASES)
def test_two_ranks_follow_one(
    trained: Callable[..., RunConfig],
    corpus_folder: Path,
    tmp_path: Path,
    objective: str,
    stage: int,
) -> None:
    sharded = run_config(
        corpus_folder,
        tmp_path / "run",
        objective=preset(objective),
        parallel={"zero_stage": stage},
    )
    run_ranks(2, train, sharded)
    whole = trained(objective)
    assert_follows(records_of(sharded), records_of(whole))
    found, expected = last_weights(sharded), last_weights(whole)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert weight.numpy() == pytest.approx(expected[name].numpy(), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_rank_whose_windows_hold_no_example_keeps_step(
    corpus_folder: Path, tmp_path: Path, stage: int
) -> None:
    """Of two windows a step, one is sometimes without a pair of sentences."""

    def held(window: int, windows: int) -> set[tuple[bool, ...]]:
        """Which windows of a step hold examples, over the first steps."""
        pair = {"objective": {"name": "nsp"}, "data": {"window": window}}
        maker = prepare(run_config(corpus_folder, tmp_path / "3", **pair), ALONE, Origins()).maker
        found = [bool(maker.examples(window)) for window in maker.stream.windows(range(windows))]
        return set(zip(found[::2], found[1::2], strict=True))

    wanted = {(True, True), (True, False), (False, True)}
    window = next(window for window in range(44, 80, 4) if wanted <= held(window, 12))
    pair: dict[str, Any] = {"objective": {"name": "nsp"}, "data": {"window": window}}
    pair["parallel"] = {"zero_stage": stage}
    training = {"global_batch_size": 2, "budget": {"amount": 500.0}}
    together = run_config(corpus_folder, tmp_path / "1", **pair, training=training)
    apart = run_config(
        corpus_folder, tmp_path / "2", **pair, training={**training, "micro_batch_size": 1}
    )
    run_ranks(1, train, together)
    run_ranks(2, train, apart)
    steps = len(records_of(together, "train"))
    assert wanted <= held(window, 2 * steps)
    assert_follows(records_of(apart), records_of(together))


def test_all_ranks_return_the_same_summary(corpus_folder: Path, tmp_path: Path) -> None:
    first, second = run_ranks(2, train, run_config(corpus_folder, tmp_path / "run"))
    assert first == second
