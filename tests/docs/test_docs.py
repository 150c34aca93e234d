"""What the pages say can be run, and links lead somewhere."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer
import yaml
from pydantic.fields import FieldInfo

from megapt.comparison.results import Budget
from megapt.config import (
    CompareConfig,
    DataConfig,
    DeviceConfig,
    PartSection,
    RunConfig,
    Section,
    load_cluster,
    load_config,
)
from megapt.errors import Exit
from megapt.evaluation.measures import MEASURES
from megapt.model.attention import BACKENDS
from megapt.monitoring.trackers import TRACKERS
from megapt.objectives import OBJECTIVES
from megapt.optim import OPTIMIZERS
from tests.docs.pages import (
    APPS,
    DOCS,
    ROOT,
    blocks,
    consoles,
    example_corpora,
    execute,
    objective_pages,
    programs,
    read,
    run,
    section,
)
from tests.training.runs import run_config

PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("README.md")])
# Files that a page tells the reader to write, or that a command writes.
NEW = {
    "configs/objective/mass.yaml",
    "docs/objectives/mass.md",
    "megapt/objectives/mass.py",
    "tests/objectives/test_mass.py",
}


def _place(page: Path) -> str:
    return str(page.relative_to(ROOT))


# The index of the objectives, and the page of each: commands and their outputs, costs, settings.


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with example_corpora(tmp_path_factory.mktemp("docs")):
        yield


PAGE_OF = objective_pages()
CONSOLES = [console for text in PAGE_OF.values() for console in consoles(text)]


def test_every_objective_has_its_page_and_its_place_in_the_index() -> None:
    names = sorted(OBJECTIVES)
    assert sorted(PAGE_OF) == names
    row = r"^\| \[`(\w+)`\]\(objectives/(\w+)\.md\) \| ([\w ]+) \|"
    rows = re.findall(row, read("objectives.md"), re.MULTILINE)
    assert sorted((name, page) for name, page, _ in rows) == [(name, name) for name in names]
    for name, _, attention in rows:
        # That of a mixture depends on its members.
        assert attention == getattr(OBJECTIVES[name], "attention", attention)
    for name, text in PAGE_OF.items():
        assert text.startswith(f"# `{name}`\n"), name


@pytest.mark.parametrize(("command", "output"), CONSOLES, ids=[name for name, _ in CONSOLES])
@pytest.mark.usefixtures("corpora")
def test_a_command_prints_what_the_page_shows(command: str, output: str) -> None:
    assert run(command) == output, "python tests/docs/regenerate.py writes the page again"


@pytest.mark.parametrize("page", ["objectives.md", "cluster.md"])
@pytest.mark.usefixtures("corpora")
def test_the_program_of_a_page_prints_what_stands_there(page: str) -> None:
    ((program, output),) = programs(read(page))
    assert execute(program) == output, "python tests/docs/regenerate.py writes the page again"


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_is_shown_in_english_and_chinese(name: str) -> None:
    shown = [command for command, _ in consoles(PAGE_OF[name])]
    assert any("chinese" in command for command in shown)
    assert any("chinese" not in command for command in shown)
    assert all(f"objective={name}" in command.split() for command in shown)


def _settings(text: str) -> dict[str, str]:
    """The tables of settings in a text: name -> default, empty if it has none."""
    tables = re.findall(r"^\| setting \| default \|.*\n.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \| ?`?([^|`]*?)`? ?\|", "".join(tables), re.MULTILINE)
    return dict(rows)


def _default(info: FieldInfo) -> Any:
    """A default as it is written: empty also for a setting that is required, or holds nothing."""
    value = "" if info.is_required() else info.get_default(call_default_factory=True)
    return "" if value in ({}, []) else value


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_setting_is_on_the_page_with_its_default(name: str) -> None:
    fields = OBJECTIVES[name].Config.model_fields
    own = _settings(PAGE_OF[name])
    common = _settings(section(read("objectives.md"), "The mask"))
    assert set(own) <= set(fields)
    assert (own or common) if fields else not own
    for field, info in fields.items():
        default = own.get(field, common.get(field))
        assert default is not None, field
        assert (yaml.safe_load(default) if default else "") == _default(info), field


# Configurations.


def _commands(text: str) -> list[list[str]]:
    """Words of the commands in `sh` blocks that train, compare or plan: config file, overrides."""
    found = []
    for line in "".join(blocks(text, "sh")).splitlines():
        match = re.search(
            r"megapt(?: |\.)(?:train|training|compare|comparison|plan|planning) (\S+\.yaml)(.*)",
            line,
        )
        if match:
            overrides = re.findall(r"(?<= )[\w.]+=\S+", match[2])
            found.append([match[1], *overrides])
    return found


# Those of extending.md are run, see test_extending.py; they need files that the page has written.
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "extending.md"], ids=_place
)
def test_commands_name_configurations_that_can_be_loaded(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for file, *overrides in _commands(page.read_text(encoding="utf-8")):
        if "compare" in file:
            load_config(CompareConfig, file, overrides)
        else:
            load_config(RunConfig, file, overrides)


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_commands_have_the_options_that_a_page_shows(page: Path) -> None:
    for line in "".join(blocks(page.read_text(encoding="utf-8"), "sh")).splitlines():
        name, *words = shlex.split(line, comments=True) or [""]
        if name not in APPS:
            continue
        command: Any = typer.main.get_command(APPS[name])
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(name, words)


def test_the_comparison_of_the_page_is_right(tmp_path: Path) -> None:
    (tmp_path / "masking.yaml").write_text(blocks(read("comparison.md"), "yaml")[0])
    words = ["members.spans.mask_rate=0.3"]
    config, _ = load_config(CompareConfig, tmp_path / "masking.yaml", words)
    settings: dict[str, Any] = {
        name: config.member(name).objective.model_dump() for name in config.members
    }
    assert {name: values["name"] for name, values in settings.items()} == {
        "tokens": "mlm",
        "spans": "mlm",
        "causal": "arlm",
    }
    assert settings["tokens"]["unit"] == "token"
    assert (settings["spans"]["unit"], settings["spans"]["mask_rate"]) == ("span", 0.3)


def test_every_key_of_a_comparison_is_on_the_page_with_its_default() -> None:
    text = section(read("comparison.md"), "Configuration")
    table = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+?) \|", text, re.MULTILINE))
    own = set(CompareConfig.model_fields) - set(RunConfig.model_fields) - {"members"}
    defaults = {name: _written(CompareConfig.model_fields[name]) for name in own}
    assert {name: yaml.safe_load(value) for name, value in table.items()} == defaults


def test_every_measure_is_on_the_page_with_its_settings() -> None:
    text = section(read("comparison.md"), "The measures")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE)
    table = {(name, setting): yaml.safe_load(default) for name, setting, default in rows}
    assert table == {
        (name, setting): info.default
        for name, kind in MEASURES.items()
        for setting, info in kind.Config.model_fields.items()
    }
    assert all(f"(`{name}`)" in text for name in MEASURES)


def test_every_part_of_ours_is_on_the_page_of_its_key() -> None:
    rows = set(
        re.findall(r"^\| `(\w+)` \|", section(read("training.md"), "Optimizers"), re.MULTILINE)
    )
    assert rows == set(OPTIMIZERS)
    for page, key, registry in (
        ("training.md", "training.attention", BACKENDS),
        ("monitoring.md", "monitor.trackers", TRACKERS),
    ):
        [row] = re.findall(rf"^\| `{key}` .*", read(page), re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(registry)


def _keys(text: str) -> dict[str, str]:
    """The tables of keys in a text: `section.key` -> default."""
    tables = re.findall(r"^\| key \| default \|.*\n.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+(?:\.\w+)+)` \| ([^|]*?) ?\|", "".join(tables), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a key has two rows"
    return dict(rows)


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that an annotation holds; parts check their settings themselves."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return None if annotation is PartSection else annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _fields(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Path and field of every key; NAME is one that users choose. Items of lists have no path."""
    for name, info in model.model_fields.items():
        inner, holder = _section_in(info.annotation), get_origin(info.annotation)
        if inner is None or holder is not None:
            yield f"{prefix}{name}", info
        if inner is not None and holder is not list:
            yield from _fields(
                inner, f"{prefix}{name}.NAME." if holder is dict else f"{prefix}{name}."
            )


def test_every_key_of_a_run_is_on_one_page_with_its_default() -> None:
    table = _keys("".join(page.read_text(encoding="utf-8") for page in PAGES))
    device = {key for key in table if key.startswith("device.")}
    table = {key: default for key, default in table.items() if key not in device}
    fields = {key: info for key, info in _fields(RunConfig) if "." in key}
    assert table.keys() == fields.keys() - {"objective.name", "objective.file"}
    for key, default in table.items():
        assert yaml.safe_load(default or "null") == _written(fields[key]), key


def _written(info: FieldInfo) -> Any:
    """A default; nothing for a key that is required."""
    if info.is_required():
        return None
    default = info.get_default(call_default_factory=True)
    if isinstance(default, list):
        return [getattr(item, "name", item) for item in default]
    return default.name if isinstance(default, PartSection) else default


def test_every_key_of_a_device_is_on_the_page_with_its_default() -> None:
    table = _keys(read("cluster.md"))
    fields = {f"device.{name}": info for name, info in DeviceConfig.model_fields.items()}
    assert table.keys() == fields.keys()
    for key, info in fields.items():
        assert yaml.safe_load(table[key] or "null") == _written(info), key


def test_every_exit_code_is_on_the_page() -> None:
    codes = re.findall(
        r"^\| (\d+) \|", section(read("operations.md"), "How a job ends"), re.MULTILINE
    )
    assert codes == [str(int(code)) for code in Exit]


def test_the_axes_are_those_of_the_budget() -> None:
    text = section(read("comparison.md"), "The five budget axes")
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == list(Budget.model_fields)


# The loader of loading.md.


def test_the_loop_of_the_page_trains(
    tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((program,),) = [blocks(read("loading.md"), "python")]
    assert len(program.splitlines()) <= 24
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "corpus").symlink_to(corpus_folder)
    monkeypatch.chdir(tmp_path)
    steps = "step == 100"
    assert steps in program
    left: dict[str, Any] = {}
    exec(program.replace(steps, "step == 20"), left)
    uniform = math.log(left["corpus"].vocabulary.size)
    assert left["loss"].item() < uniform - 0.5
    assert left["loader"].state().windows == 21 * 8


def test_the_mixture_of_the_page_is_a_configuration() -> None:
    (text,) = blocks(read("loading.md"), "yaml")
    data = DataConfig.model_validate(yaml.safe_load(text)["data"])
    assert data.mixture is not None
    assert data.mixture.schedule[0].weights == {"code": 1}


# Other snippets.


def test_the_program_of_training_trains(tmp_path: Path, corpus_folder: Path) -> None:
    ((program,),) = [blocks(read("training.md"), "python")]
    (tmp_path / "configs/run").mkdir(parents=True)
    small = run_config(corpus_folder, Path("runs/demo"), training={"budget": {"amount": 800.0}})
    text = yaml.safe_dump(small.model_dump())
    (tmp_path / "configs/run/demo.yaml").write_text(text, encoding="utf-8")
    script = f"{program}\nprint(summary['steps'])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "3"
    assert (tmp_path / "runs/mlm/summary.json").is_file()


def test_configurations_of_pages_can_be_loaded(tmp_path: Path) -> None:
    demo = f"base: {ROOT}/configs/run/demo.yaml\n"
    (tmp_path / "stable.yaml").write_text(demo, encoding="utf-8")
    for page in ("training.md", "checkpoints.md"):
        for number, text in enumerate(blocks(read(page), "yaml")):
            file = tmp_path / f"{page}-{number}.yaml"
            base = "" if "base: stable" in text else demo
            file.write_text(base + text.replace("base: stable", "base: stable.yaml"))
            load_config(RunConfig, file)
    (preset,) = blocks(read("model.md"), "yaml")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modern-1b.yaml").write_text(preset, encoding="utf-8")
    config, _ = load_config(RunConfig, tmp_path / "stable.yaml", ["model=modern-1b"])
    assert config.model.num_layers == 16
    (cluster,) = blocks(read("cluster.md"), "yaml")
    (tmp_path / "cluster.yaml").write_text(cluster, encoding="utf-8")
    assert load_cluster(tmp_path / "cluster.yaml").ranks == 32


# Links and names.


def _anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_no_page_names_a_missing_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "configs|data_prep|docs|launchers|megapt|tests"
    named = set(re.findall(rf"(?<![\w./])((?:{folders})/[\w./-]*\w(?!\w*[*<…]))", text))
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing - NEW
