"""A kill at any moment of a save leaves the checkpoints before it, and the run goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megapt.checkpoint import manifest, steps_saved, store, writing
from megapt.checkpoint.state import checkpoint_path
from megapt.distributed.ranks import Ranks
from tests.checkpoint.engines import settings, train
from tests.ranks import end_ranks, run_ranks


def dying_at(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that kills this process the `count`-th time that it is called."""
    left = [count]

    def call(*args: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return call


def train_until_killed(
    ranks: Ranks, folder: Path, place: str, count: int, victim: int, checkpoint: dict[str, Any]
) -> None:
    """Save every step until one rank is killed."""
    module, name = {
        "write": (writing, "record_of"),  # a file is there, and not yet hashed
        "manifest": (manifest, "write_json"),  # all files are written, nobody has said so
        "rename": (Path, "rename"),  # complete, and has another name
        "remove": (store, "remove"),  # has its name; older ones are still there
    }[place]
    if ranks.rank == victim:
        setattr(module, name, dying_at(count, getattr(module, name)))
    train(ranks, folder, settings(2), 4, 1, checkpoint)


PLACES = [
    ("write", 1, 0, []),
    ("write", 5, 0, [1]),
    ("write", 2, 1, [1]),
    ("manifest", 3, 0, [1, 2]),
    ("rename", 2, 0, [1]),
    ("remove", 1, 0, [1, 2, 3]),
]
"""Where, the how-many-th time, on which rank; and what is left at least."""


@pytest.mark.parametrize(
    ("asynchronous", "place", "count", "victim", "left"),
    [
        *((False, *each) for each in PLACES[1:]),
        *((True, *each) for each in PLACES[:3]),
    ],
)
def test_killed_in_a_save(
    tmp_path: Path, asynchronous: bool, place: str, count: int, victim: int, left: list[int]
) -> None:
    checkpoint = {"async_save": asynchronous, "keep_last": 2}
    args = (tmp_path, place, count, victim, checkpoint)
    outcomes, printed = end_ranks(2, train_until_killed, *args)
    assert outcomes[victim].killed, (outcomes, printed)
    assert steps_saved(tmp_path) == left
    whole = run_ranks(2, train, tmp_path / "whole", settings(2), 5, 9)[0]
    again = run_ranks(2, train, tmp_path, settings(2), 5, 1, checkpoint)[0]
    assert again == whole[max(left, default=0) :]
    assert steps_saved(tmp_path) == [4, 5]
    assert not list(tmp_path.glob(".*"))


def replace_until_killed(ranks: Ranks, folder: Path) -> None:
    """Resume before a damaged checkpoint, and be killed as it is replaced."""
    Path.rename = dying_at(2, Path.rename)  # type: ignore[method-assign]
    train(ranks, folder, settings(0), 2, 1, {"keep_last": 3})


def test_killed_while_a_checkpoint_takes_the_place_of_another(tmp_path: Path) -> None:
    run_ranks(1, train, tmp_path, settings(0), 2, 1)
    (checkpoint_path(tmp_path, 2) / "model.safetensors").write_bytes(b"damaged")
    outcomes, _ = end_ranks(1, replace_until_killed, tmp_path)
    assert outcomes[0].killed
    assert steps_saved(tmp_path) == [1]
    assert len(list(tmp_path.glob(".step-00000002.replaced"))) == 1
    losses = run_ranks(1, train, tmp_path, settings(0), 3, 1)[0]
    assert losses == run_ranks(1, train, tmp_path / "whole", settings(0), 3, 9)[0][1:]
    assert steps_saved(tmp_path) == [2, 3]
