"""`megapt` as users type it: its usage, and what `megapt show` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megapt.objectives import OBJECTIVES
from tests.cli.answers import TRAINED, Answer, Megapt
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian run.yaml", "train"),
        ("train", "CONFIG"),
        ("train --objective mlm run.yaml", "--objective"),
        ("eval", "RUN"),
        ("eval run --windows 0", "--windows"),
        ("eval run --windows many", "--windows"),
        ("show run.yaml --window -1", "--window"),
        ("show run.yaml --html", "--html"),
        ("generate run", "--prompt"),
        ("generate run --prompt a --top-p 2", "--top-p"),
        ("generate run --prompt a --temperature -1", "--temperature"),
        ("generate run --prompt a --temperature inf", "--temperature"),
        ("fill-mask run", "TEXT"),
        ("fill-mask run [MASK] --top 0", "--top"),
        ("classify run", "TEXTS"),
    ],
)
def test_wrong_usage_ends_with_code_2(megapt: Megapt, words: str, said: str) -> None:
    answer = megapt(*words.split())
    assert answer.code == 2
    assert answer.output == ""
    assert said.lower() in answer.errors.lower()


def test_help_needs_no_torch() -> None:
    code = "import sys; import megapt.cli; assert 'torch' not in sys.modules; megapt.cli.main()"
    helped = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert helped.returncode == 0, helped.stderr
    for name in ("train", "compare", "show", "eval", "generate", "fill-mask", "classify"):
        assert name in helped.stdout


def test_a_program_reads_nothing_but_json_on_standard_output(runs: Path) -> None:
    """In a process of its own, where libraries greet the user as they like."""
    code = "from megapt.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code, "eval", str(runs / "mlm"), "--windows", "2", "--json"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert set(json.loads(answer.stdout)) == {"model", "unigram"}


@pytest.mark.parametrize("objective", TRAINED)
def test_show_prints_the_same_window_under_every_objective(
    megapt: Megapt, config_file: Path, objective: str
) -> None:
    words = ("show", config_file, f"objective={objective}", "--window", 3)
    usual = megapt("show", config_file, "--window", 3, "--json").json
    shown = megapt(*words, "--json").json
    assert {key: shown[key] for key in ("window", "raw_tokens", "pieces")} == {
        key: usual[key] for key in ("window", "raw_tokens", "pieces")
    }
    heads = {target["head"] for example in shown["examples"] for target in example["targets"]}
    assert heads or objective in ("nsp", "bert")
    text = megapt(*words).output
    assert f"objective {objective}: {len(shown['examples'])} example" in text
    for piece in shown["pieces"]:
        assert piece["text"] in text
    assert not config_file.with_name("run").exists()


def test_show_names_the_windows_that_there_are(megapt: Megapt, config_file: Path) -> None:
    message = megapt("show", config_file, "--window", 10**6).refusal
    last = int(message.rsplit(" ", 1)[1])
    assert megapt("show", config_file, "--window", last).code == 0
    assert "windows are 0 to" in megapt("show", config_file, "--window", last + 1).refusal


def test_show_all_shows_every_objective_on_the_page_and_as_json(
    megapt: Megapt, config_file: Path
) -> None:
    file = config_file.with_name("window.html")
    answer = megapt("show", config_file, "--all", "--html", file)
    assert answer == Answer(0, f"page: {file}\n", "")
    page = file.read_text(encoding="utf-8")
    listed = megapt("show", config_file, "--all", "--json").json
    assert [shown["objective"] for shown in listed] == sorted(OBJECTIVES)
    assert all(f'<h2 id="{name}">' in page for name in OBJECTIVES)
    assert "objective=mlm" in megapt("show", config_file, "objective=mlm", "--all").refusal


@pytest.mark.parametrize(
    ("place", "said"), [("", "is a folder"), ("nowhere/page.html", "there is no folder")]
)
def test_show_refuses_a_page_without_a_place(
    megapt: Megapt, config_file: Path, place: str, said: str
) -> None:
    before = sorted(config_file.parent.rglob("*"))
    assert said in megapt("show", config_file, "--html", config_file.parent / place).refusal
    assert sorted(config_file.parent.rglob("*")) == before
