"""Files with one bad document, and the line that refuses them."""

from pathlib import Path
from typing import Any

import pytest
from prep_inputs import jsonl, read

from data_prep.errors import PrepError

ROWS = [{"text": f"the river {number} 河流"} for number in range(50)]
MEND = "; fix it, or skip such documents with --errors skip"


def spoil(number: int, line: bytes) -> bytes:
    """JSON lines of which line `number` (from 1) is `line`."""
    lines = [jsonl([row]) for row in ROWS]
    lines[number - 1] = line + b"\n"
    return b"".join(lines)


def others(number: int) -> list[str]:
    return [row["text"] for index, row in enumerate(ROWS, 1) if index != number]


def stopped(path: Path, **settings: Any) -> str:
    with pytest.raises(PrepError) as error:
        read(path, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message
