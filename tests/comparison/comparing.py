"""Small comparisons, run on ranks or refused."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from megapt.comparison.compare import Comparison
from megapt.comparison.results import Results
from megapt.config import CompareConfig, Origins
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from tests.training.runs import ALONE, before_step, run_config

ALL = ("arlm", "mlm", "msc", "mgm", "nsp")
CLOCK = ("wall_clock", "tokens_per_second")


def probe(train: int, validation: int) -> dict[str, Any]:
    """The section of a small probe."""
    return {"name": "probe", "train_documents": train, "validation_documents": validation}


def compare_config(
    corpus: Path,
    output: Path,
    *members: str,
    training: dict[str, Any] | None = None,
    **changes: Any,
) -> CompareConfig:
    """A comparison of some four steps a member; `changes` replace whole settings."""
    usual = {"validate_every": 2, "budget": {"amount": 2500.0}}
    run = run_config(corpus, output, data={"window": 96}, training={**usual, **(training or {})})
    return CompareConfig.model_validate(
        {
            **run.model_dump(exclude={"objective", "branch"}),
            "members": {name: {"name": name} for name in members},
            "measures": [
                probe(60, 30),
                {"name": "repetition", "num_samples": 2, "max_new_tokens": 5},
            ],
            "validation_windows": 10,
            "num_samples": 2,
            "max_new_tokens": 5,
            **changes,
        }
    )


def compare(ranks: Ranks, config: CompareConfig) -> Results:
    """Run the comparison on this rank."""
    return Comparison(config, ranks, Origins()).run()


def compare_until_killed(ranks: Ranks, config: CompareConfig, member: str, step: int) -> None:
    """Run the comparison; SIGKILL comes in update `step` of `member`."""
    comparison = Comparison(config, ranks, Origins())
    doomed = comparison.prepared[member]
    before_step(doomed, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    comparison.run()


def trained_files(config: CompareConfig) -> dict[str, int]:
    """When each file that training writes was last changed."""
    folder = Path(config.output)
    return {
        str(file.relative_to(folder)): file.stat().st_mtime_ns
        for file in (folder / "members").rglob("*")
        if file.is_file()
    }


def without_clock(value: Any) -> Any:
    """`value` without what depends on how fast the machine was, and where it wrote."""
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if key not in CLOCK}
    if isinstance(value, list):
        return [without_clock(item) for item in value]
    # The axes that are not held equal are told in a sentence, seconds among them.
    return re.sub(r"wall clock \([^)]*\)", "", value) if isinstance(value, str) else value


def refusal(config: CompareConfig, origins: Origins | None = None) -> str:
    """The line that refuses a comparison before anything is trained or written."""
    output = Path(config.output)
    before = sorted(output.rglob("*"))
    with pytest.raises(ConfigError) as raised:
        Comparison(config, ALONE, origins or Origins())
    assert sorted(output.rglob("*")) == before
    message = str(raised.value)
    assert "\n" not in message
    return message
