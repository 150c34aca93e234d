"""Configuration files for the tests, and how they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megapt.config import RunConfig, load_config
from megapt.errors import ConfigError

RUN = """\
output: runs/test
data:
  corpus: corpora/test
model: small
objective: mlm
training:
  budget:
    amount: 1000
"""
SMALL = """\
num_layers: 2
hidden_size: 16
num_heads: 2
intermediate_size: 32
"""
Write = Callable[..., Path]


def load(file: Path, *overrides: str) -> RunConfig:
    return load_config(RunConfig, file, overrides)[0]


def refusal(file: Path, *overrides: str, schema: type = RunConfig) -> str:
    """The error's text, which must be one line."""
    with pytest.raises(ConfigError) as error:
        load_config(schema, file, overrides)
    text = str(error.value)
    assert len(text.splitlines()) == 1, text
    return text


def changed(run_file: Path, old: str, new: str) -> Path:
    text = run_file.read_text(encoding="utf-8")
    assert old in text
    run_file.write_text(text.replace(old, new), encoding="utf-8")
    return run_file
