"""The README's commands do what it says, literally but for the size of text and model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from megapt.objectives import OBJECTIVES
from tests.commands import run_command
from tests.corpora import make_documents
from tests.ranks import run_ranks

_ROOT = Path(__file__).resolve().parents[1]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_SMALL = [
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.intermediate_size=32",
    "data.window=128",
    "training.budget.amount=1500",
    "training.validation_windows=8",
]
_SMALL_COMPARISON = [
    *(word for word in _SMALL if not word.startswith("training.validation")),
    "training.validation_windows=8",
    "validation_windows=8",
    "num_samples=1",
    "max_new_tokens=4",
]


def _commands(heading: str) -> list[list[str]]:
    """The commands of the shell blocks under a heading, as words."""
    section = _README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]


def _scaled(command: list[str]) -> list[str]:
    """The command at a size that takes a moment."""
    if command[:2] == ["megapt-prep", "tokenizer"]:
        return [word if word != "32000" else "520" for word in command]
    if command[:2] == ["megapt-prep", "build"]:
        return [*command, "--valid-fraction", "0.2"]
    if command[:2] == ["megapt", "train"]:
        return [*command, *_SMALL]
    if command[:2] == ["megapt", "compare"]:
        return [*command, *_SMALL_COMPARISON]
    return command


@pytest.mark.parametrize("labeled", [False, True])
def test_own_corpus_then_use_of_its_runs(tmp_path: Path, labeled: bool) -> None:
    (tmp_path / "texts").mkdir()
    documents = [
        {"text": d["text"], **({"label": d["topic"]} if labeled else {})}
        for d in make_documents(160)
    ]
    lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    (tmp_path / "texts" / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "configs").symlink_to(_ROOT / "configs")
    commands = _commands("Your own corpus")
    used = {" ".join(command[:2]) for command in commands}
    assert used == {
        "megapt-prep tokenizer", "megapt-prep build", "megapt compare", "megapt generate",
        "megapt fill-mask", "megapt show", "megapt train", "megapt eval",
    }  # fmt: skip
    for command in commands:
        label = ["--label-field", "label"] if labeled and command[1] == "build" else []
        run_ranks(1, run_command, tmp_path, [*_scaled(command), *label])
    results = json.loads((tmp_path / "runs/comparison/results.json").read_text())
    members = {member["objective"] for member in results["members"]}
    assert members == {"arlm", "mlm", "prefix_lm", "mgm", "diffusion"}
    measures = {measure["name"] for measure in results["measures"]}
    assert measures == ({"probe", "repetition"} if labeled else {"repetition"})
    assert "<svg" in (tmp_path / "window.html").read_text(encoding="utf-8")


def test_it_names_every_objective() -> None:
    linked = re.findall(r"\[`(\w+)`\]\(docs/objectives/(\w+)\.md\)", _README)
    assert sorted(linked) == [(name, name) for name in sorted(OBJECTIVES)]


def test_its_two_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([\w -]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {name for target in targets for name in target.split()}
    commands = _commands("Two commands")
    assert [command[0] for command in commands] == ["make", "make"]
    assert {command[1] for command in commands} <= named


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", _README):
        if not link.startswith("http"):
            assert (_ROOT / link).exists(), link
