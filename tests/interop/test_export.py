"""A run in a format of the user's own: written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.answers import Megapt
from tests.cli.conftest import megapt, runs

__all__ = ["megapt", "runs"]

WEIGHTS = """
import torch

from megapt.interop import Exporter


class Weights(Exporter):
    name = "weights"

    def problem(self, run):
        return "it classifies" if run.objective.name == "msc" else ""

    def export(self, run, folder):
        torch.save(run.model.state_dict(), folder / "weights.pt")
        {more}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "weights.py"
    file.write_text(WEIGHTS.format(more="pass"), encoding="utf-8")
    return file


def test_a_format_of_ones_own(megapt: Megapt, runs: Path, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "输出"
    answer = megapt("export", runs / "arlm", "--to", "weights", "--file", file, "--output", output)
    assert (answer.code, answer.output) == (0, f"{output}\n")
    weights = torch.load(output / "weights.pt", weights_only=True)
    assert "trunk.embeddings.words.weight" in weights
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    megapt: Megapt, runs: Path, file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = ("--to", "weights", "--file", file, "--output", output)
    assert megapt("export", runs / "msc", *words).refusal.endswith(
        "msc: does not fit 'weights': it classifies"
    )
    assert not output.exists()
    line = megapt("export", runs / "arlm", "--to", "weight", *words[2:]).refusal
    assert line == (f"--to: no export format named 'weight' in {file}; did you mean 'weights'?")
    line = megapt("export", runs / "arlm", "--to", "hff", "--output", output).refusal
    assert line == "--to: no export format named 'hff'; there are none"
    output.mkdir()
    (output / "mine").write_text("mine")
    line = megapt("export", runs / "arlm", *words).refusal
    assert line == f"{output}: already exists; choose another --output"


def test_what_fails_half_way_leaves_nothing(
    megapt: Megapt, runs: Path, file: Path, tmp_path: Path
) -> None:
    more = "raise OSError(28, 'No space left on device', str(folder))"
    file.write_text(WEIGHTS.format(more=more), encoding="utf-8")
    output = tmp_path / "out"
    answer = megapt("export", runs / "arlm", "--to", "weights", "--file", file, "--output", output)
    assert answer.code != 0
    assert "No space left on device" in answer.errors
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]
