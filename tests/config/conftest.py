"""Configuration files in a folder of the test."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.config.loading import RUN, SMALL, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into the folder of the test's configs and return its path."""

    def write(name: str, text: str | bytes) -> Path:
        file = tmp_path / "configs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


@pytest.fixture
def run_file(write: Write) -> Path:
    write("model/small.yaml", SMALL)
    return write("run/test.yaml", RUN)
