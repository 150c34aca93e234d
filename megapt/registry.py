"""Finds parts of one kind by name: megapt's own, those of installed packages, a file of the user's.

A part is one class in one file, derived from the base of its kind, with a `name` of its own.
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

_NOT_RUN = (Exception, SystemExit)
"""What foreign code may raise while it is imported; a Ctrl-C is the user's and passes."""


class PartError(ValueError):
    """A part cannot be found, or is none; the text says why."""


def read_source(file: str | Path) -> bytes:
    """Return the content of a Python file that defines parts.

    Raises:
        PartError: if there is none.
    """
    file = Path(file)
    if file.suffix != ".py" or not file.is_file():
        raise PartError(f"{file}: no such Python file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise PartError(f"{file}: {error.strerror}") from error


@cache
def _run(file: Path, source: bytes) -> ModuleType:
    """Return the module that a Python file of this content is.

    Raises:
        PartError: if it cannot be run, with the line.
    """
    # Compiled here: no bytecode is left beside the file, and none that is stale is used.
    digest = hashlib.sha256(str(file).encode() + source).hexdigest()
    module = ModuleType(f"megapt_part_{digest[:12]}")
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
        raise PartError(f"{where}: {type(error).__name__}: {error}") from error
    return module


def own_settings(
    section: PartSection, own: type[SectionT], origins: Origins, path: str
) -> SectionT:
    """Return what a section holds beside its own keys, as the part's `Config` checks it.

    Args:
        section: that names the part.
        own: the part's `Config`.
        origins: where the settings stand, for errors.
        path: dotted path of the section.

    Raises:
        ConfigError: for a key that neither has, or a wrong value.
    """
    extra = section.model_extra or {}
    known = [*type(section).model_fields, *own.model_fields]
    for key in extra.keys() - set(known):
        raise origins.error(f"{path}.{key}", unknown_key(f"{path}.{key}", known))
    return validate(own, extra, origins, path)


class Registry(Mapping[str, type[PartT]]):
    """The parts of one kind: name -> class, of all but users' own files.

    Args:
        kind: what one is called in messages, "objective" say.
        base: class that all derive from. If it is annotated with a `Config`, a part has one: the
            settings that it checks itself.
        package: whose modules define megapt's own parts.
        group: entry points of installed packages, `NAME = "module:Class"`.
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
        """What is found when it is first looked for.

        Raises:
            ConfigError: naming the entry point of an installed package that is wrong.
        """
        package = importlib.import_module(self._package)
        kinds: list[type[PartT]] = []
        for file in pkgutil.iter_modules(package.__path__):
            kinds += self._defined_in(importlib.import_module(f"{self._package}.{file.name}"))
        found = self._by_name(kinds)
        for point in entry_points(group=self.group):
            try:
                found = self._by_name([*found.values(), self._declared(point)])
            except PartError as error:
                package_name = f" of the package '{point.dist.name}'" if point.dist else ""
                declared = f"{point.name} = {point.value}"
                raise ConfigError(
                    f"entry point '{declared}'{package_name}: {error}; mend or uninstall it"
                ) from error
        return found

    def find(
        self, name: str, file: str | None, origins: Origins, path: str | tuple[str, str]
    ) -> type[PartT]:
        """Return the class of this name.

        Args:
            name: of the part.
            file: Python file of the user's own that defines it; None for any other.
            origins: where the settings stand, for errors.
            path: dotted path of the section that has `name` and `file`, or of these two.

        Raises:
            ConfigError: for an unknown name, or code of the user's that defines no such part.
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
        """Return the parts that a module defines itself; what it imports is not its own."""
        return [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, self._base)
            and value.__module__ == module.__name__
        ]

    def _by_name(self, kinds: Iterable[type[PartT]]) -> dict[str, type[PartT]]:
        """Return name -> class.

        Raises:
            PartError: if two have the same name.
        """
        found: dict[str, type[PartT]] = {}
        for kind in kinds:
            name = vars(kind).get("name")  # a shared base class has none of its own
            if not isinstance(name, str):
                continue
            if found.setdefault(name, kind) is not kind:
                first, second = (f"{k.__module__}.{k.__qualname__}" for k in (found[name], kind))
                raise PartError(f"two {self.kind}s are named '{name}': {first} and {second}")
        return found

    def _declared(self, point: EntryPoint) -> type[PartT]:
        """Import the class that an installed package declares.

        Raises:
            PartError: if it cannot be imported, or is no part with a name of its own.
        """
        try:
            kind: Any = point.load()
        except _NOT_RUN as error:
            raise PartError(f"{type(error).__name__}: {error}") from error
        if not (isinstance(kind, type) and issubclass(kind, self._base)):
            raise PartError(f"it should be a class derived from {self._base.__name__}")
        if not isinstance(vars(kind).get("name"), str):
            raise PartError("the class should have a `name` of its own")
        return kind

    def _in_file(self, file: Path) -> Mapping[str, type[PartT]]:
        """Run a Python file as it now is, and return the parts that it defines.

        Raises:
            PartError: if it is not there or cannot be run, or if two of its parts have one name.
        """
        module = _run(file, read_source(file))
        try:
            return self._by_name(self._defined_in(module))
        except PartError as error:
            raise PartError(f"{file}: {error}") from None

    def _missing(self, kind: type[PartT]) -> list[str]:
        """Return what a class lacks that a part has to give."""
        missing = sorted(getattr(kind, "__abstractmethods__", ()))
        config = getattr(kind, "Config", None)
        wanted = "Config" in inspect.get_annotations(self._base)
        if wanted and not (isinstance(config, type) and issubclass(config, Section)):
            missing.append("Config (a class derived from megapt.config.Section)")
        return missing
