"""Finds parts of one kind by name, in megapt, in installed packages and in users' files.

A part is one class in one file. It derives from the base class of its kind and defines a `name`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from megapt.config import Origins, PartSection, Section, validate
from megapt.config.errors import nearest, unknown_key
from megapt.errors import ConfigError

PartT = TypeVar("PartT")
SectionT = TypeVar("SectionT", bound=Section)

_IMPORT_ERRORS = (Exception, SystemExit)
"""What third-party code may raise while it is imported. KeyboardInterrupt is not caught."""


class PartError(ValueError):
    """A part cannot be found, or is not valid; the text says why."""


def read_source(file: str | Path) -> bytes:
    """Return the content of a Python file that defines parts.

    Raises:
        PartError: there is no such file, or it cannot be read.
    """
    file = Path(file)
    if file.suffix != ".py" or not file.is_file():
        raise PartError(f"{file}: no such Python file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise PartError(f"{file}: {error.strerror}") from error


@cache
def _run_file(file: Path, source: bytes) -> ModuleType:
    """Run a Python file with this content as a module, and return the module.

    Raises:
        PartError: the file cannot be run; the text names the line.
    """
    # Compiled here, so that no bytecode is written next to the file and no stale one is used.
    digest = hashlib.sha256(str(file).encode() + source).hexdigest()
    module = ModuleType(f"megapt_part_{digest[:12]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # pydantic resolves annotations there
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
    except _IMPORT_ERRORS as error:
        del sys.modules[module.__name__]
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{file}:{line}" if line else str(file)
        raise PartError(f"{where}: {type(error).__name__}: {error}") from error
    return module


def part_settings(
    section: PartSection, own: type[SectionT], origins: Origins, path: str
) -> SectionT:
    """Validate the settings of a section that belong to its part, not to the section itself.

    Args:
        section: the section that names the part.
        own: the part's `Config`.
        origins: where the settings come from, for errors.
        path: dotted path of the section.

    Returns:
        The part's settings.

    Raises:
        ConfigError: a key belongs to neither, or a value is wrong.
    """
    extra = section.model_extra or {}
    known = [*type(section).model_fields, *own.model_fields]
    for key in extra.keys() - set(known):
        raise origins.error(f"{path}.{key}", unknown_key(f"{path}.{key}", known))
    return validate(own, extra, origins, path)


class Registry(Mapping[str, type[PartT]]):
    """The parts of one kind: name -> class. Parts in users' files are not included.

    Args:
        kind: what messages call such a part, for example "objective".
        base: class that all parts derive from. If it is annotated with a `Config`, each part must
            define one: the model of its own settings.
        package: package whose modules define megapt's own parts.
        group: group of the entry points of installed packages, `NAME = "module:Class"`.
    """

    def __init__(self, kind: str, base: type[PartT], package: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._package = package

    def __getitem__(self, name: str) -> type[PartT]:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @cached_property
    def _parts(self) -> dict[str, type[PartT]]:
        """All parts, collected at the first access.

        Raises:
            ConfigError: an installed package is wrong; the text names its entry point.
        """
        package = importlib.import_module(self._package)
        classes: list[type[PartT]] = []
        for file in pkgutil.iter_modules(package.__path__):
            classes += self._defined_in(importlib.import_module(f"{self._package}.{file.name}"))
        found = self._by_name(classes)
        for point in entry_points(group=self.group):
            try:
                found = self._by_name([*found.values(), self._load(point)])
            except PartError as error:
                package_name = f" of the package '{point.dist.name}'" if point.dist else ""
                declared = f"{point.name} = {point.value}"
                raise ConfigError(
                    f"entry point '{declared}'{package_name}: {error}; fix or uninstall it"
                ) from error
        return found

    def find(
        self, name: str, file: str | None, origins: Origins, path: str | tuple[str, str]
    ) -> type[PartT]:
        """Return the class with this name.

        Args:
            name: name of the part.
            file: the user's Python file that defines it; None for any other part.
            origins: where the settings come from, for errors.
            path: dotted path of the section with the keys `name` and `file`, or the dotted paths
                of these two keys.

        Raises:
            ConfigError: the name is unknown, or the user's file defines no such part.
        """
        name_at, file_at = (f"{path}.name", f"{path}.file") if isinstance(path, str) else path
        where = "" if file is None else f" in {file}"
        try:
            known: Mapping[str, type[PartT]] = self if file is None else self._in_file(Path(file))
        except PartError as error:
            raise origins.error(file_at, str(error)) from None
        if name not in known:
            hint = nearest(name, [*known])
            raise origins.error(name_at, f"no {self.kind} named '{name}'{where}; {hint}")
        if missing := self._missing(known[name]):
            lead = "" if file is None else f"{file}: "
            lacks = f"class {known[name].__qualname__} lacks {', '.join(missing)}"
            raise origins.error(name_at, f"{lead}{lacks}")
        return known[name]

    def _defined_in(self, module: ModuleType) -> list[type[PartT]]:
        """Return the parts that a module defines itself, without those that it imports."""
        return [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, self._base)
            and value.__module__ == module.__name__
        ]

    def _by_name(self, classes: Iterable[type[PartT]]) -> dict[str, type[PartT]]:
        """Return name -> class.

        Raises:
            PartError: two classes have the same name.
        """
        found: dict[str, type[PartT]] = {}
        for each in classes:
            name = vars(each).get("name")  # A shared base class defines none.
            if not isinstance(name, str):
                continue
            if found.setdefault(name, each) is not each:
                first, second = (f"{c.__module__}.{c.__qualname__}" for c in (found[name], each))
                raise PartError(f"two {self.kind}s are named '{name}': {first} and {second}")
        return found

    def _load(self, point: EntryPoint) -> type[PartT]:
        """Import the class that an installed package declares.

        Raises:
            PartError: it cannot be imported, or it is no part that defines a name.
        """
        try:
            loaded: Any = point.load()
        except _IMPORT_ERRORS as error:
            raise PartError(f"{type(error).__name__}: {error}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, self._base)):
            raise PartError(f"it should be a class derived from {self._base.__name__}")
        if not isinstance(vars(loaded).get("name"), str):
            raise PartError("the class should have a `name` of its own")
        return loaded

    def _in_file(self, file: Path) -> Mapping[str, type[PartT]]:
        """Run the current content of a Python file, and return the parts that it defines.

        Raises:
            PartError: the file cannot be read or run, or two of its parts have the same name.
        """
        module = _run_file(file, read_source(file))
        try:
            return self._by_name(self._defined_in(module))
        except PartError as error:
            raise PartError(f"{file}: {error}") from None

    def _missing(self, part: type[PartT]) -> list[str]:
        """Return the names that a part must define and this class does not."""
        missing = sorted(getattr(part, "__abstractmethods__", ()))
        config = getattr(part, "Config", None)
        wanted = "Config" in inspect.get_annotations(self._base)
        if wanted and not (isinstance(config, type) and issubclass(config, Section)):
            missing.append("Config (a class derived from megapt.config.Section)")
        return missing
