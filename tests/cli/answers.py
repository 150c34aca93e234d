"""Commands called in this process or on a rank of their own, and what they answer."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from megapt import exits
from megapt.cli import main
from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import Exit
from tests.ranks import run_ranks
from tests.training.runs import train

TRAINED = ("arlm", "mlm", "msc", "mgm", "nsp", "bert")
CHINESE = "渔船在港口看见灯塔。"
LONG = "The old ship and every sail. " * 20


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Its whole standard output as JSON."""
        return json.loads(self.output)

    @property
    def refusal(self) -> str:
        """The one line that refuses wrong input."""
        return self.line(Exit.WRONG_INPUT)

    def line(self, code: Exit) -> str:
        """The one line of an error that ends with this code."""
        assert self.code == code, self
        assert self.output == ""
        [line] = self.errors.splitlines()
        assert line.startswith("megapt: error: ")
        return line.removeprefix("megapt: error: ")


Megapt = Callable[..., Answer]


def call_main(words: tuple[object, ...]) -> int:
    with patch.object(sys, "argv", ["megapt", *map(str, words)]), pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def command(ranks: Ranks, words: tuple[object, ...]) -> Answer:
    """Run a command that trains, on a rank of its own; the harness ends the process group."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        patch.object(exits, "leave", sys.exit),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        code = call_main(words)
    return Answer(code, output.getvalue(), errors.getvalue())


def trained_by(*words: object) -> Answer:
    [answer] = run_ranks(1, command, words)
    return answer


def train_all(ranks: Ranks, configs: list[RunConfig]) -> None:
    for config in configs:
        train(ranks, config)


def write_yaml(file: Path, values: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file
