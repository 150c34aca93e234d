"""All parts of docs/extending.md in one run, on two ranks, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from megapt.comparison.results import load
from megapt.distributed.ranks import Ranks
from megapt.errors import Exit
from tests.commands import run_command
from tests.docs.pages import ROOT, blocks, example_corpora, read, section
from tests.patience import patience
from tests.ranks import run_ranks

PAGE = read("extending.md")
FILES = {
    "mass.py": blocks(PAGE.partition("\n## An optimizer\n")[0], "python")[0],
    "sgd.py": blocks(section(PAGE, "An optimizer"), "python")[0],
    "dense.py": blocks(section(PAGE, "An attention backend"), "python")[0],
    "halves.py": blocks(section(PAGE, "A measure"), "python")[0],
    "compare.yaml": blocks(section(PAGE, "A measure"), "yaml")[0],
    "csv_losses.py": blocks(section(PAGE, "A tracker"), "python")[0],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example corpora, the files of the page, and a run of all of them."""
    made = tmp_path_factory.mktemp("own-parts")
    with example_corpora(made):
        for name, text in FILES.items():
            (made / name).write_text(text, encoding="utf-8")
        values = yaml.safe_load((ROOT / "docs/examples/show.yaml").read_text(encoding="utf-8"))
        values["objective"] = {"name": "mass", "file": "mass.py"}
        values["optimizer"] = {"name": "sgd", "file": "sgd.py", "lr": 0.1, "dampening": 0.1}
        values["parallel"] = {"zero_stage": 2}
        values["training"]["attention"] = {"name": "dense", "file": "dense.py"}
        values["training"]["log_every"] = 1
        tracker = {"name": "csv_losses", "file": "csv_losses.py", "delimiter": ";"}
        values["monitor"] = {"trackers": ["tensorboard", tracker]}
        (made / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return made


def stopped(ranks: Ranks, folder: Path, command: list[str], file: Path) -> str:
    """Run a command that is asked to stop once a file has some lines; return how it ended."""

    def stop() -> None:
        end = time.monotonic() + patience(60)
        while time.monotonic() < end:
            if file.is_file() and file.read_bytes().count(b"\n") > 2:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.01)

    if ranks.main:
        threading.Thread(target=stop, daemon=True).start()
    try:
        run_command(ranks, folder, command)
    except AssertionError as error:
        return str(error)
    return "ended by itself"


def test_they_train_and_are_resumed_through_the_real_command(folder: Path) -> None:
    words = ["megapt", "train", "run.yaml"]
    run_ranks(2, run_command, folder, [*words, "output=whole"])
    broken = [*words, "output=broken"]
    ends = run_ranks(2, stopped, folder, broken, folder / "broken/losses.csv")
    assert all(end.endswith(f"exit code {Exit.RESTART.value}") for end in ends), ends
    assert not (folder / "broken/summary.json").exists()
    run_ranks(2, run_command, folder, broken)
    whole, again = (
        (folder / run / "losses.csv").read_text(encoding="utf-8").splitlines()
        for run in ("whole", "broken")
    )
    assert again == whole
    assert len(whole) > 50
    assert whole[-1].startswith("valid;")
    summary = json.loads((folder / "broken/summary.json").read_text())
    assert summary["steps"] == json.loads((folder / "whole/summary.json").read_text())["steps"]
    kept = {path.name for path in (folder / "broken").glob("*.py")}
    assert kept == {
        "objective.py",
        "optimizer.py",
        "training.attention.py",
        "monitor.trackers.csv_losses.py",
    }


def test_a_comparison_with_a_measure_is_stopped_and_resumed(folder: Path) -> None:
    words = ["megapt", "compare", "compare.yaml", "training.log_every=1"]
    run_ranks(2, run_command, folder, [*words, "output=compared"])
    broken = [*words, "output=again"]
    second = folder / "again/members/mlm/metrics.jsonl"
    ends = run_ranks(2, stopped, folder, broken, second)
    assert all(end.endswith(f"exit code {Exit.RESTART.value}") for end in ends), ends
    assert not (folder / "again/results.json").exists()
    run_ranks(2, run_command, folder, broken)
    whole, resumed = (load(folder / run / "results.json") for run in ("compared", "again"))
    assert resumed.measures == whole.measures
    assert {m.name: m.scores for m in resumed.members} == {m.name: m.scores for m in whole.members}
    assert (folder / "again/measures.halves.py").is_file()
