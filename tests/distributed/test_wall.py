"""Outside `megapt/distributed/` nothing imports DeepSpeed, and nothing reads what is its own."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WALL = ROOT / "megapt" / "distributed"
OUTSIDE = sorted(
    file
    for folder in ("megapt", "launchers")
    for file in (ROOT / folder).rglob("*.py")
    if WALL not in file.parents
)

# What DeepSpeed hangs on its engines, optimizers and parameters, and its functions on those.
OWN = re.compile(
    r"""_*(
    ds_\w+ | hp_mapping | [lh]p_(\w+_)?fragment\w*
    | fp32_partitioned\w* | single_partition_of_fp32\w* | (bit|fp)16_(\w+_)?groups\w*
    | zero_optimization_stage | GatheredParameters | safe_[gs]et_\w+
    | checkpoint_event_\w+ | param_coordinator\w*
    )""",
    re.VERBOSE,
)


def _is_config(node: ast.expr) -> bool:
    """Whether this is `config` or `….config`: a configuration has a section `deepspeed`."""
    return (isinstance(node, ast.Name) and node.id == "config") or (
        isinstance(node, ast.Attribute) and node.attr == "config"
    )


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _is_deepspeed(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "deepspeed"


def _in_call(call: ast.Call) -> Iterator[str]:
    """What a call reaches for by a name in a string."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    words = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    words = [word for word in words if isinstance(word, str)]
    if name in ("import_module", "__import__"):
        yield from filter(_is_deepspeed, words)
    elif name in ("getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"):
        yield from (word for word in words if word in ("deepspeed", "_engine"))


def _in_node(node: ast.AST) -> Iterator[str]:
    names: list[str | None] = []
    match node:
        case ast.Import():
            yield from filter(_is_deepspeed, (alias.name for alias in node.names))
        case ast.ImportFrom():
            names = [alias.name for alias in node.names]
            if _is_deepspeed(node.module) and not node.level:
                yield f"{node.module}"
        case ast.Attribute():
            names = [node.attr]
            if node.attr == "deepspeed" and not _is_config(node.value):
                yield node.attr
            # Of its own an object may have one; that of another is an Engine's.
            if node.attr == "_engine" and not _is_self(node.value):
                yield node.attr
        case ast.Name():
            names = [node.id]
        case ast.arg() | ast.keyword():
            names = [node.arg]
        case ast.FunctionDef() | ast.ClassDef():
            names = [node.name]
        case ast.Constant(value=str()):
            names = [str(node.value)]
        case ast.Call():
            yield from _in_call(node)
    yield from (name for name in names if name and OWN.fullmatch(name))


def of_deepspeed(source: str) -> list[str]:
    """What a source text touches of DeepSpeed, as `line: name`."""
    nodes = [node for node in ast.walk(ast.parse(source)) if hasattr(node, "lineno")]
    return [f"{node.lineno}: {name}" for node in nodes for name in _in_node(node)]


def test_nothing_outside_touches_what_is_deepspeeds() -> None:
    assert WALL.is_dir()
    found = {file: of_deepspeed(file.read_text(encoding="utf-8")) for file in OUTSIDE}
    assert {str(file.relative_to(ROOT)): names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import deepspeed", "deepspeed"),
        ("import deepspeed.comm as dist", "deepspeed.comm"),
        ("from deepspeed.utils import groups", "deepspeed.utils"),
        ("import_module('deepspeed.comm')", "deepspeed.comm"),
        ("def late():\n    import deepspeed", "deepspeed"),
        ("megapt.distributed.engine.deepspeed.comm.barrier()", "deepspeed"),
        ("getattr(engine, 'deepspeed')", "deepspeed"),
        ("parameter.ds_tensor", "ds_tensor"),
        ("hasattr(parameter, 'ds_id')", "ds_id"),
        ("attrgetter('ds_id')(parameter)", "ds_id"),
        ("vars(parameter)['ds_id']", "ds_id"),
        ("setattr(parameter, 'ds_numel', 1)", "ds_numel"),
        ("parameter._hp_mapping", "_hp_mapping"),
        ("optimizer.fp32_partitioned_groups_flat", "fp32_partitioned_groups_flat"),
        ("optimizer.single_partition_of_fp32_groups[0]", "single_partition_of_fp32_groups"),
        ("optimizer.bit16_groups", "bit16_groups"),
        ("optimizer.fp16_groups[0]", "fp16_groups"),
        ("mapping.lp_fragment_address", "lp_fragment_address"),
        ("mapping.hp_fragment", "hp_fragment"),
        ("engine.zero_optimization_stage()", "zero_optimization_stage"),
        ("safe_get_full_fp32_param(p)", "safe_get_full_fp32_param"),
        ("from megapt.distributed.engine import safe_set_full_grad", "safe_set_full_grad"),
        ("with zero.GatheredParameters(p): pass", "GatheredParameters"),
        ("optimizer.checkpoint_event_epilogue()", "checkpoint_event_epilogue"),
        ("optimizer.param_coordinator.trace", "param_coordinator"),
        ("make(ds_config={})", "ds_config"),
        ("def make(ds_config): pass", "ds_config"),
        ("self.engine._engine.backward(loss)", "_engine"),
        ("getattr(engine, '_engine')", "_engine"),
    ],
)
def test_what_is_deepspeeds_is_found(line: str, name: str) -> None:
    assert [found.partition(": ")[2] for found in of_deepspeed(line)] == [name]


@pytest.mark.parametrize(
    "line",
    [
        "config.deepspeed.get('zero_optimization')",
        "self.config.deepspeed",
        "self._engine = engine",
        "self._engine.step(rate)",
        "deepspeed: dict[str, Any] = Field(default_factory=dict)",
        "from megapt.distributed.deepspeed_config import zero_stage",
        "piece.ends_document",
        "packages = ('torch', 'deepspeed')",
        "'''The engine of DeepSpeed keeps ds_tensor.'''",
    ],
)
def test_what_is_megapts_is_let_through(line: str) -> None:
    assert of_deepspeed(line) == []


# The contracts of pyproject.toml.


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, with the repository's contracts."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("megapt", "data_prep", "launchers"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken_contracts(tree: Path) -> list[str]:
    """Return the names of the contracts that the tree breaks."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    broken = re.findall(r"^(.*) BROKEN", done.stdout, re.MULTILINE)
    assert bool(broken) == bool(done.returncode), done.stdout + done.stderr
    return broken


def test_the_contracts_are_kept(tree: Path) -> None:
    assert broken_contracts(tree) == []


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("megapt/training/steps.py", "import deepspeed", "Only megapt.distributed knows DeepSpeed"),
        (
            "launchers/slurm.py",
            "def late() -> None:\n    import deepspeed.comm",
            "Only megapt.distributed knows DeepSpeed",
        ),
        ("megapt/objectives/mlm.py", "import megapt.model.trunk", "megapt imports one way"),
    ],
)
def test_an_import_that_breaks_a_contract_is_found(
    tree: Path, file: str, line: str, contract: str
) -> None:
    planted = tree / file
    source = planted.read_text(encoding="utf-8")
    planted.write_text(f"{source}\n\n{line}\n", encoding="utf-8")
    try:
        assert contract in broken_contracts(tree)
    finally:
        planted.write_text(source, encoding="utf-8")
