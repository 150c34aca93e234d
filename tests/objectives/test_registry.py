from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import megapt.objectives
from megapt.config import ObjectiveSection, Origins
from megapt.errors import ConfigError, Exit
from megapt.exits import run_and_report
from megapt.objectives import OBJECTIVES, Context, Objective, build_objective
from megapt.objectives.mlm import Mlm
from megapt.registry import Registry
from tests.objectives.builders import LABELS, PRESETS, build
from tests.windows import VOCABULARY

CONTEXT = Context(VOCABULARY, 64, LABELS)


def refusal(context: Context = CONTEXT, **settings: Any) -> str:
    origins = Origins({"objective": "run.yaml:3", "objective.mask_rat": "run.yaml:5"})
    with pytest.raises(ConfigError) as error:
        build_objective(ObjectiveSection(**settings), context, origins)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def test_the_objectives_of_the_first_version_are_there() -> None:
    assert {"arlm", "mlm", "nsp", "bert", "msc", "mgm"} <= set(OBJECTIVES)


def test_names_are_those_of_the_files() -> None:
    folder = Path(megapt.objectives.__file__).parent
    for name, objective in OBJECTIVES.items():
        assert objective.__module__ == f"megapt.objectives.{name}"
        assert (folder / f"{name}.py").is_file()


def test_every_objective_has_a_preset_of_its_name_and_every_preset_an_objective() -> None:
    named = {
        file.stem: ObjectiveSection(**yaml.safe_load(file.read_text(encoding="utf-8"))).name
        for file in PRESETS.glob("*.yaml")
    }
    assert set(OBJECTIVES) <= set(named)
    assert set(named.values()) <= set(OBJECTIVES)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_can_be_built(name: str) -> None:
    objective = build(name)
    assert isinstance(objective, OBJECTIVES[name])
    assert len({head.name for head in objective.heads}) == len(objective.heads) > 0


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_a_test_file(name: str) -> None:
    assert (Path(__file__).parent / f"test_{name}.py").is_file()


SHARED = """
from megapt.objectives.mlm import Mlm

class Shared(Mlm):
    "Has no name of its own: it inherits one."
"""


def own(file: Path, *classes: str) -> None:
    """Write a module that derives classes from `Shared`; `classes` are their names."""
    text = SHARED
    for number, name in enumerate(classes):
        text += f"\nclass Own{number}(Shared):\n    name = {name!r}\n"
    file.write_text(text, encoding="utf-8")


def test_a_class_without_a_name_of_its_own_takes_no_place(tmp_path: Path) -> None:
    """A shared base class between an objective and its children must not hide the objective."""
    own(tmp_path / "own.py", "own")
    section = ObjectiveSection(name="own", file=str(tmp_path / "own.py"))
    assert type(build_objective(section, CONTEXT, Origins())).__qualname__ == "Own0"
    section = ObjectiveSection(name="mlm", file=str(tmp_path / "own.py"))
    with pytest.raises(ConfigError, match="no objective named 'mlm' in"):
        build_objective(section, CONTEXT, Origins())
    assert Registry("objective", Objective, "megapt.objectives", "none")["mlm"] is Mlm


def test_two_objectives_of_one_name_in_a_file_are_refused(tmp_path: Path) -> None:
    own(tmp_path / "own.py", "own", "own")
    text = refusal(name="own", file=str(tmp_path / "own.py"))
    assert text.startswith(f"run.yaml:3: objective.file: {tmp_path}/own.py: two objectives are ")
    assert "Own0" in text
    assert "Own1" in text


OWN = """
from megapt.config import Section
from megapt.objectives import Objective

class Own(Objective):
    name = "own"
    attention = "causal"
    {config}
    heads = ()
    {methods}
"""
METHODS = "examples = cost = lambda self, *_: []"


@pytest.mark.parametrize(
    ("config", "methods", "says"),
    [
        ("Config = Section", "", "class Own lacks cost, examples"),
        ("pass", METHODS, "class Own lacks Config (a class derived from megapt.config.Section)"),
        ("Config = dict", METHODS, "class Own lacks Config (a class"),
        ("Config = Section()", METHODS, "class Own lacks Config (a class"),
        ("pass", "", "class Own lacks cost, examples, Config (a class"),
    ],
)
def test_a_class_that_lacks_something_is_refused_with_what_it_lacks(
    tmp_path: Path, config: str, methods: str, says: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN.format(config=config, methods=methods), encoding="utf-8")
    text = refusal(name="own", file=str(file))
    assert text.startswith(f"run.yaml:3: objective.name: {file}: {says}")
    file.write_text(OWN.format(config="Config = Section", methods=METHODS), encoding="utf-8")
    section = ObjectiveSection(name="own", file=str(file))
    assert build_objective(section, CONTEXT, Origins()).name == "own"


@pytest.mark.parametrize("code", ["sys.exit(0)", "raise SystemExit", "sys.exit('no')", "1 / 0"])
def test_a_file_that_ends_the_process_or_fails_is_refused(tmp_path: Path, code: str) -> None:
    (tmp_path / "own.py").write_text(f"import sys\n{code}\n", encoding="utf-8")
    text = refusal(name="own", file=str(tmp_path / "own.py"))
    assert f"{tmp_path}/own.py:2: " in text
    assert "SystemExit" in text or "ZeroDivisionError" in text


def test_ctrl_c_while_a_file_runs_is_not_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        refusal(name="own", file=str(tmp_path / "own.py"))


def test_a_file_is_run_as_it_now_is_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    for name in ("own_a", "own_b"):  # of one size, within one tick of the file system's clock
        own(file, name)
        built = build_objective(ObjectiveSection(name=name, file=str(file)), CONTEXT, Origins())
        assert built.name == name
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Install a package `wrong-package` of this source; return what any objective is answered."""
    vars(OBJECTIVES).pop("_parts", None)
    folder = tmp_path / "wrong_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: wrong-package\nVersion: 1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def answered(source: str, declared: str = "wrong_package:Own") -> str:
        (tmp_path / "wrong_package.py").write_text(source, encoding="utf-8")
        entry = f"[megapt.objectives]\nown = {declared}\n"
        (folder / "entry_points.txt").write_text(entry, encoding="utf-8")
        importlib.invalidate_caches()
        return refusal(name="arlm")

    yield answered
    sys.modules.pop("wrong_package", None)
    vars(OBJECTIVES).pop("_parts", None)


NAMED_MLM = """
from megapt.objectives.mlm import Mlm
class Own(Mlm):
    name = "mlm"
"""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("", "AttributeError: "),
        ("Own = 3", "it should be a class derived from Objective"),
        ("from megapt.objectives import Objective as Own", "the class should have a `name` of its"),
        (NAMED_MLM, "two objectives are named 'mlm': megapt.objectives.mlm.Mlm and wrong_package."),
    ],
)
def test_an_installed_package_that_is_wrong_is_named(
    installed: Callable[..., str], source: str, says: str
) -> None:
    text = installed(source)
    entry = "entry point 'own = wrong_package:Own' of the package 'wrong-package'"
    assert text.startswith(f"{entry}: {says}")


def test_a_wrong_package_ends_a_command_with_one_line(
    installed: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    installed("1 / 0")
    assert run_and_report(lambda: [].extend(OBJECTIVES)) == Exit.WRONG_INPUT
    assert capfd.readouterr().err.startswith("megapt: error: entry point 'own = wrong_package:Own'")


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    text = refusal(name="arml")
    assert text.startswith("run.yaml:3: objective.name:")
    assert "did you mean 'arlm'?" in text


def test_a_name_like_none_is_answered_with_all_names() -> None:
    text = refusal(name="xyzzy")
    assert all(name in text for name in OBJECTIVES)


def test_a_misspelt_setting_is_answered_with_its_place_and_the_nearest() -> None:
    text = refusal(name="mlm", mask_rat=0.2)
    assert text.startswith("run.yaml:5: objective.mask_rat:")
    assert "did you mean 'mask_rate'?" in text


def test_a_setting_of_another_objective_is_refused() -> None:
    assert "pair_weight" in refusal(name="mlm", pair_weight=1.0)
    assert "mask_rate" in refusal(name="arlm", mask_rate=0.2)


@pytest.mark.parametrize("value", ["much", None, 2.0, True])
def test_a_setting_of_a_wrong_type_or_size_is_refused(value: Any) -> None:
    assert "objective.mask_rate" in refusal(name="mlm", mask_rate=value)


def test_shares_over_1_are_refused_with_both_values() -> None:
    text = refusal(name="mlm", mask_replace_prob=0.9, random_replace_prob=0.3)
    assert "0.9" in text
    assert "0.3" in text
