"""The README's commands do what it says, literally but for the size of text and model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from megapt.config import RunConfig, load_config
from megapt.objectives import OBJECTIVES, Context, build_objective
from tests.commands import run_command
from tests.corpora import make_documents
from tests.ranks import run_ranks
from tests.windows import VOCABULARY

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
    "measures=[{name: probe, train_documents: 60, heldout_documents: 40}, repetition]",
    "num_samples=1",
    "max_new_tokens=4",
]


def _commands(heading: str) -> list[list[str]]:
    """The commands of the first shell block under a heading, as words."""
    section = _README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts/, configs/ and a corpus, as the README's reader has it."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "texts").mkdir()
    documents = [{"text": d["text"], "label": d["topic"]} for d in make_documents(160)]
    lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    (folder / "texts" / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "configs").symlink_to(_ROOT / "configs")
    for command in _commands("Your own corpus"):
        if command[0] == "megapt-prep":
            run_ranks(1, run_command, folder, _scaled(command))
    return folder


def test_own_corpus_then_use_of_its_runs(workplace: Path) -> None:
    for command in _commands("Your own corpus"):
        if command[0] == "megapt":
            run_ranks(1, run_command, workplace, _scaled(command))
    results = json.loads((workplace / "runs/comparison/results.json").read_text())
    assert {member["objective"] for member in results["members"]} == {
        "arlm", "mlm", "msc", "mgm", "nsp",
    }  # fmt: skip
    # The README uses the runs of the demo; these are the same members of another comparison.
    (workplace / "runs/demo").symlink_to("comparison")
    uses = _commands("Using a run")
    assert {command[1] for command in uses} == {"eval", "generate", "fill-mask", "classify"}
    for command in uses:
        run_ranks(1, run_command, workplace, command)


def test_what_each_objective_makes_of_text_as_a_page(workplace: Path) -> None:
    """In windows for which the few sentinels of the corpus suffice."""
    [command] = _commands("The way of the data")
    corpus = workplace / "corpus"
    run_ranks(1, run_command, workplace, [*command, f"data.corpus={corpus}", "data.window=64"])
    page = (workplace / "window.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in page or f" {name}" in page for name in OBJECTIVES)


def test_its_mixture_is_one(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", _README, re.DOTALL)
    file = tmp_path / "run.yaml"
    file.write_text(
        "output: x\ndata: {corpus: c, window: 64}\nmodel: modern\n"
        f"training: {{budget: {{amount: 1e6}}}}\n{block}",
        encoding="utf-8",
    )
    config, origins = load_config(RunConfig, file)
    context = Context(VOCABULARY, config.data.window, steps=config.planned_steps)
    objective = build_objective(config.objective, context, origins)
    assert [head.name for head in objective.heads] == ["causal/tokens", "spans/tokens"]


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
