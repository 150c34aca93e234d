"""Writes files atomically: they appear complete or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_prep.files import write_atomically


def write_text(file: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically and durably."""
    write_atomically(file, text.encode())


def write_json(file: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically and durably."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
