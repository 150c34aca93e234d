"""Corpora with a damaged shard that a run comes to late, after what is looked at first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from megapt.config import Origins, RunConfig
from megapt.data import Corpus, WindowStream
from megapt.training.prepared import prepare
from tests.training.runs import ALONE, merged, run_config

# One lane reads the shards one after another; the budget ends in the fourth of five.
_IN_TURN: dict[str, Any] = {
    "data": {"lanes": 1, "shuffle_buffer_shards": 1, "shuffle_buffer_blocks": 2},
    "training": {"budget": {"amount": 9000.0}, "validate_every": 0},
}


def run_in_turn(corpus: Path, output: Path, **sections: Any) -> RunConfig:
    """The configuration of a run that reads shard after shard."""
    return run_config(corpus, output, **merged(_IN_TURN, sections))


def late_shard(corpus: Path) -> tuple[Path, int]:
    """A shard that such a run reads late, and the step in which it first needs it."""
    maker = prepare(run_in_turn(corpus, Path("never")), ALONE, Origins()).maker
    stream = maker.stream
    assert isinstance(stream, WindowStream)
    first: dict[int, int] = {}
    for number in range(stream.count):
        epoch, index = stream.order.locate(number)
        token = index * stream.window_size
        last = min(token + stream.window_size, stream.order.tokens) - 1
        for place in (token, last):
            for shard in stream.order.chunk(epoch, place).blocks[:, 0].tolist():
                first.setdefault(shard, number)
    # The windows that are looked at first must not need it.
    shard, number = next((shard, number) for shard, number in first.items() if number > 64)
    return corpus / Corpus(corpus).train.info.shards[shard].file, number // 8 + 1


def copy_of(corpus: Path, folder: Path) -> Path:
    """A corpus of the same content that may be damaged."""
    return Path(shutil.copytree(corpus, folder / "corpus"))


def flip(file: Path) -> None:
    """Change one bit in the middle of a file; a second time repairs it."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
