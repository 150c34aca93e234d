"""What the other optimizers and the average keep goes on at another stage, on other ranks."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from megapt.config import RunConfig
from tests.ranks import run_ranks
from tests.training.runs import (
    assert_follows,
    last_weights,
    records_of,
    run_config,
    train,
    train_with_signal,
)

# (optimizer, its keys, ranks and stage before, ranks and stage after)
WAYS: list[tuple[str, dict[str, Any], tuple[int, int], tuple[int, int]]] = [
    ("lion", {"lr": 1e-3}, (2, 1), (1, 3)),
    ("muon", {}, (2, 2), (1, 0)),
    ("muon", {}, (1, 0), (2, 1)),
    ("adamw", {"layer_decay": 0.7, "ema_decay": 0.8}, (2, 3), (1, 0)),
    ("adamw", {"layer_decay": 0.7, "ema_decay": 0.8}, (2, 1), (2, 2)),
]


@pytest.mark.parametrize(("name", "keys", "before", "after"), WAYS)
def test_a_run_goes_on_as_if_nothing_had_changed(
    corpus_folder: Path,
    tmp_path: Path,
    name: str,
    keys: dict[str, Any],
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    def config(folder: str, stage: int) -> RunConfig:
        return run_config(
            corpus_folder,
            tmp_path / folder,
            optimizer={"name": name, **keys},
            parallel={"zero_stage": stage},
        )

    run_ranks(before[0], train, config("whole", before[1]))
    broken = config("broken", before[1])
    assert run_ranks(before[0], train_with_signal, broken, signal.SIGTERM, 3) == [None] * before[0]
    run_ranks(after[0], train, config("broken", after[1]))
    # Muon orthogonalizes in bfloat16, and Lion takes signs.
    rel = 1e-5 if name == "adamw" else 2e-3
    assert_follows(records_of(broken), records_of(config("whole", before[1])), rel)
    if name == "adamw":
        found, expected = last_weights(broken), last_weights(config("whole", before[1]))
        for part, weight in expected.items():
            assert found[part].numpy() == pytest.approx(weight.numpy(), rel=1e-4, abs=1e-6)
