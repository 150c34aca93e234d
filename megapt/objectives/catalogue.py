"""Finds objectives: in this folder, in installed packages, or in a file that the settings name."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType

from megapt.config import ObjectiveSection, Origins, Section
from megapt.config.errors import nearest
from megapt.errors import ConfigError
from megapt.objectives.base import Context, Objective, ObjectiveError

ENTRY_POINTS = "megapt.objectives"
"""Group in which an installed package may declare `NAME = "module:Class"`."""

_NOT_RUN = (Exception, SystemExit)
"""What foreign code may raise while it is imported; a Ctrl-C is the user's and passes."""


def _defined_in(module: ModuleType) -> list[type[Objective]]:
    """Return the objectives that a module defines itself; what it imports is not its own."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Objective)
        and value.__module__ == module.__name__
    ]


def _by_name(kinds: Iterable[type[Objective]]) -> dict[str, type[Objective]]:
    """Return name -> objective.

    Raises:
        ObjectiveError: if two have the same name.
    """
    found: dict[str, type[Objective]] = {}
    for kind in kinds:
        name = vars(kind).get("name")  # a shared base class has none of its own
        if not isinstance(name, str):
            continue
        if found.setdefault(name, kind) is not kind:
            first, second = (f"{k.__module__}.{k.__qualname__}" for k in (found[name], kind))
            raise ObjectiveError(f"two objectives are named '{name}': {first} and {second}")
    return found


def _declared(point: EntryPoint) -> type[Objective]:
    """Import the class that an installed package declares.

    Raises:
        ObjectiveError: if it cannot be imported, or is no objective with a name of its own.
    """
    try:
        kind = point.load()
    except _NOT_RUN as error:
        raise ObjectiveError(f"{type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise ObjectiveError("it should be a class derived from Objective")
    if not isinstance(vars(kind).get("name"), str):
        raise ObjectiveError("the class should have a `name` of its own")
    return kind


@cache
def registry() -> MappingProxyType[str, type[Objective]]:
    """Import every file of this folder and every declared class; return name -> objective.

    Raises:
        ConfigError: naming the entry point of an installed package that is wrong.
    """
    kinds: list[type[Objective]] = []
    for file in pkgutil.iter_modules([str(Path(__file__).parent)]):
        kinds += _defined_in(importlib.import_module(f"{__package__}.{file.name}"))
    found = _by_name(kinds)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found = _by_name([*found.values(), _declared(point)])
        except ObjectiveError as error:
            package = f" of the package '{point.dist.name}'" if point.dist else ""
            declared = f"{point.name} = {point.value}"
            raise ConfigError(
                f"entry point '{declared}'{package}: {error}; mend or uninstall it"
            ) from error
    return MappingProxyType(found)


def read_source(file: str | Path) -> bytes:
    """Return the content of a Python file that defines objectives.

    Raises:
        ObjectiveError: if there is none.
    """
    file = Path(file)
    if file.suffix != ".py" or not file.is_file():
        raise ObjectiveError(f"{file}: no such Python file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ObjectiveError(f"{file}: {error.strerror}") from error


def _objectives_in(file: Path) -> Mapping[str, type[Objective]]:
    """Run a Python file as it now is, and return the objectives that it defines.

    Raises:
        ObjectiveError: if it is not there or cannot be run, or if two of its objectives have the
            same name.
    """
    return _run(file, read_source(file))


@cache
def _run(file: Path, source: bytes) -> dict[str, type[Objective]]:
    # Compiled here: no bytecode is left beside the file, and none that is stale is used.
    digest = hashlib.sha256(str(file).encode() + source).hexdigest()
    module = ModuleType(f"megapt_objective_{digest[:12]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # pydantic looks the names of annotations up there
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
    except _NOT_RUN as error:
        del sys.modules[module.__name__]
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{file}:{line}" if line else str(file)
        raise ObjectiveError(f"{where}: {type(error).__name__}: {error}") from error
    try:
        return _by_name(_defined_in(module))
    except ObjectiveError as error:
        raise ObjectiveError(f"{file}: {error}") from None


def _check_class(kind: type[Objective]) -> None:
    """Refuse a class that lacks what an objective has to give.

    Raises:
        ObjectiveError: naming what is missing.
    """
    missing = sorted(kind.__abstractmethods__)
    config = getattr(kind, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Section)):
        missing.append("Config (a class derived from megapt.config.Section)")
    if missing:
        raise ObjectiveError(f"class {kind.__qualname__} lacks {', '.join(missing)}")


def build_objective(
    section: ObjectiveSection, context: Context, origins: Origins, path: str = "objective"
) -> Objective:
    """Check the section's settings and build the objective that it names.

    Args:
        section: name and settings.
        context: what the corpus and its windows offer.
        origins: where the settings stand, for errors.
        path: dotted path of the section.

    Raises:
        ConfigError: for an unknown name, a wrong setting, a corpus that lacks what is needed, or
            code of the user's that defines no objective.
    """
    try:
        known: Mapping[str, type[Objective]] = (
            registry() if section.file is None else _objectives_in(Path(section.file))
        )
    except ObjectiveError as error:
        raise origins.error(f"{path}.file", str(error)) from None
    if section.name not in known:
        where = "" if section.file is None else f" in {section.file}"
        raise origins.error(
            f"{path}.name",
            f"no objective named '{section.name}'{where}; {nearest(section.name, [*known])}",
        )
    kind, settings = known[section.name], section.model_extra or {}
    try:
        _check_class(kind)
    except ObjectiveError as error:
        where = "" if section.file is None else f"{section.file}: "
        raise origins.error(f"{path}.name", f"{where}{error}") from None
    try:
        return kind.build(settings, context, origins, path)
    except ObjectiveError as error:
        raise origins.error(path, str(error)) from None
