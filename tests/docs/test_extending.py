"""docs/extending.md, followed to the letter in a folder of its own."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

from megapt.comparison.results import load
from megapt.config import ObjectiveSection, Origins
from megapt.data import CounterRng, Window
from megapt.errors import ConfigError
from megapt.evaluation.measures import MEASURES
from megapt.model.attention import BACKENDS
from megapt.monitoring.trackers import TRACKERS
from megapt.objectives import OBJECTIVES, Context, Objective, build_objective
from megapt.optim import OPTIMIZERS
from megapt.registry import Registry
from tests.commands import run_command
from tests.docs.pages import ROOT, blocks, example_corpora, read, run, section
from tests.ranks import run_ranks
from tests.training.runs import tree
from tests.windows import VOCABULARY, make_piece, random_piece

WHOLE = read("extending.md")
OPTIMIZER, BACKEND = section(WHOLE, "An optimizer"), section(WHOLE, "An attention backend")
TRACKER, EXPORTER = section(WHOLE, "A tracker"), section(WHOLE, "An export format")
MEASURE = section(WHOLE, "A measure")
PAGE = WHOLE.partition("\n## An optimizer\n")[0]
[SOURCE], [SETTINGS], [DECLARED] = (blocks(PAGE, kind) for kind in ("python", "yaml", "toml"))
[COMMANDS] = blocks(PAGE, "sh")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the corpora and the two files of the page; it is the working folder."""
    folder = tmp_path_factory.mktemp("extending")
    with example_corpora(folder):
        (folder / "objective").mkdir()
        (folder / "objective/mass.py").write_text(SOURCE, encoding="utf-8")
        (folder / "objective/mass.yaml").write_text(SETTINGS, encoding="utf-8")
        (folder / "optimizer").mkdir()
        for kind, file in (("python", "sgd.py"), ("yaml", "sgd.yaml")):
            [text] = blocks(OPTIMIZER, kind)
            (folder / "optimizer" / file).write_text(text, encoding="utf-8")
        [text] = blocks(BACKEND, "python")
        (folder / "dense.py").write_text(text, encoding="utf-8")
        [text] = blocks(TRACKER, "python")
        (folder / "csv_losses.py").write_text(text, encoding="utf-8")
        [text] = blocks(EXPORTER, "python")
        (folder / "weights.py").write_text(text, encoding="utf-8")
        for kind, file in (("python", "halves.py"), ("yaml", "compare.yaml")):
            [text] = blocks(MEASURE, kind)
            (folder / file).write_text(text, encoding="utf-8")
        yield folder


def mass(folder: Path, **settings: float) -> Objective:
    section = ObjectiveSection(name="mass", file=str(folder / "objective/mass.py"), **settings)
    return build_objective(section, Context(VOCABULARY, 64), Origins())


def test_its_commands_run_and_nothing_that_exists_changes(followed: Path) -> None:
    before = {name: tree(ROOT / name) for name in ("megapt", "configs", "docs")}
    show, *others = COMMANDS.splitlines()
    shown = run(show)
    assert "objective mass: 3 examples" in shown
    assert "[MASK] [MASK]" in shown
    parts = (OPTIMIZER, BACKEND, TRACKER, EXPORTER)
    of_parts = [command.strip() for part in parts for command in blocks(part, "sh")]
    for command in [*of_parts, *others]:
        [printed] = run_ranks(1, run_command, followed, shlex.split(command))
    assert "loss/tokens" in printed
    after = {name: tree(ROOT / name) for name in before}
    changed = {
        path
        for name, files in before.items()
        for path in files.keys() ^ after[name].keys()
        if not path.endswith(".pyc")
    }
    assert not changed
    assert "mass" not in OBJECTIVES
    assert "sgd" not in OPTIMIZERS
    assert "dense" not in BACKENDS
    assert "csv_losses" not in TRACKERS
    assert (followed / "runs/examples/dense/training.attention.py").is_file()
    assert (followed / "runs/examples/sgd/optimizer.py").is_file()
    assert (followed / "runs/examples/csv/monitor.trackers.csv_losses.py").is_file()
    assert (followed / "runs/examples/weights/weights.pt").is_file()
    lines = (followed / "runs/examples/csv/losses.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("train,10,")
    assert lines[-1].startswith("valid,")


def test_a_measure_is_asked_on_two_ranks_and_kept(followed: Path) -> None:
    [command] = blocks(MEASURE, "sh")
    printed, _ = run_ranks(2, run_command, followed, shlex.split(command))
    assert "Halves (95 %)" in printed
    out = followed / "runs/examples/halves"
    assert (out / "measures.halves.py").read_bytes() == (followed / "halves.py").read_bytes()
    results = load(out / "results.json")
    halves, repetition = results.measures
    assert (halves.name, repetition.name) == ("halves", "repetition")
    assert halves.settings == {"documents": 500}
    assert halves.untrained is not None
    assert halves.baselines == {"chance": 0.5}
    for member in results.members:
        score = member.scores["halves"]
        assert len(score.items) == halves.items >= 2
        assert score.value == sum(filter(None, score.items)) / halves.items
    assert "Halves is highest for" in (out / "report.html").read_text(encoding="utf-8")
    assert "halves" not in MEASURES


def test_the_run_in_the_source_is_what_is_written(followed: Path) -> None:
    objective = mass(followed)
    piece = random_piece(21, 4)
    for key in range(50):
        [example] = objective.examples(Window(0, 0, (piece,)), CounterRng(key))
        asked = example.targets["tokens"]
        source = example.tokens[1:22].copy()
        [holes] = np.nonzero(source == VOCABULARY.mask)
        assert holes.tolist() == list(range(holes[0], holes[0] + round(0.5 * 21)))
        source[holes] = asked.labels
        assert source.tolist() == piece.tokens.tolist()
        # A token of the run is written from the state that stands at its own place.
        assert example.positions[asked.positions].tolist() == holes.tolist()
        assert example.positions.max() < 21 + 3


@pytest.mark.parametrize("tokens", [1, 2, 7, 64])
def test_its_cost_is_that_of_its_examples(followed: Path, tokens: int) -> None:
    objective = mass(followed, share=0.3)
    window = Window(0, 0, (make_piece([50] * tokens),))
    [example] = objective.examples(window, CounterRng("cost"))
    cost = objective.cost(tokens)
    assert (len(example), len(example.targets["tokens"].labels)) == (cost.positions, cost.targets)
    assert len(example) <= objective.longest_example(tokens)


def test_its_settings_are_checked_like_all_others(followed: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective.shares: unknown key; did you mean 'share'"):
        mass(followed, shares=0.5)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "no such Python file"),
        ("import nothing_of_this_name\n", "mass.py:1: ModuleNotFoundError"),
        ("x = 1\ny = (\n", "SyntaxError"),
        ("x = 1\n", "no objective named 'mass' in"),
    ],
)
def test_a_file_that_gives_no_objective_is_refused(
    tmp_path: Path, source: str | None, says: str
) -> None:
    (tmp_path / "objective").mkdir()
    if source is not None:
        (tmp_path / "objective/mass.py").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        mass(tmp_path)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_package_may_declare_it(
    followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/mass.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    declared_group = re.search(r'entry-points."(.*)"', DECLARED)
    declared_class = re.search(r'^(\w+) = "(.*)"', DECLARED, re.MULTILINE)
    assert declared_group
    assert declared_class
    point = EntryPoint(*declared_class.groups(), declared_group[1])

    def declared(*, group: str) -> EntryPoints:
        return EntryPoints([point]).select(group=group)

    monkeypatch.setattr("megapt.registry.entry_points", declared)
    try:
        assert (
            Registry("objective", Objective, "megapt.objectives", declared_group[1])[
                "mass"
            ].__module__
            == "my_package.mass"
        )
    finally:
        for name in ("my_package", "my_package.mass"):
            sys.modules.pop(name, None)
