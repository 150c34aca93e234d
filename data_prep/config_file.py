"""Reads settings from a YAML file; every error names the file, the line and the path."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from data_prep.errors import PrepError

Settings = TypeVar("Settings", bound=BaseModel)


class ConfigFile:
    """A YAML file of settings, or no file.

    Args:
        path: the file; None is the same as an empty file.

    Attributes:
        values: the content of the file.

    Raises:
        PrepError: the file is missing, is not YAML, is not a mapping, or a mapping in it has the
            same name twice.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._root: yaml.Node | None = None
        self.values: dict[str, Any] = {}
        if path is None:
            return
        try:
            text = path.read_text(encoding="utf-8")
            self._root = yaml.compose(text, yaml.SafeLoader)
            _check_repeats(path, self._root)
            values = yaml.safe_load(text)
        except FileNotFoundError:
            raise PrepError(f"{path}: no such config file") from None
        except UnicodeDecodeError:
            raise PrepError(f"{path}: not UTF-8") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "not YAML"
            raise PrepError(f"{path}{line}: not YAML ({problem})") from None
        except ValueError as error:  # a date that does not exist
            raise PrepError(f"{path}: {error}; put the value in quotes") from None
        if not isinstance(values, dict):
            raise PrepError(f"{path}: a config file must hold a mapping, such as `errors: skip`")
        self.values = values

    def check(self, kind: type[Settings], values: Mapping[str, Any]) -> Settings:
        """Validate `values`, for example this file's content with changes.

        Args:
            kind: the model of the settings.
            values: the settings by name.

        Raises:
            PrepError: a value is unknown, missing or wrong. The message names its path, and its
                line if the value is in this file.
        """
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            path = [part for part in first["loc"] if not _is_internal(part)]
            raise PrepError(self._describe(path, first["type"], first, kind)) from None

    def _describe(
        self, path: Sequence[int | str], fault: str, error: Mapping[str, Any], kind: type[BaseModel]
    ) -> str:
        name = ".".join(map(str, path))
        message = str(error["msg"]).removeprefix("Value error, ")
        if fault == "extra_forbidden":
            message = "there is no such setting"
            if near := get_close_matches(str(path[-1]), _names(kind, path[:-1]), 1):
                message += f"; did you mean {near[0]!r}?"
        elif fault == "missing":
            message = "this setting is required"
        return f"{self._place(path)}{name}: {message}"

    def _place(self, path: Sequence[int | str]) -> str:
        """Return "file:line: " of a setting, or of its closest parent that the file holds."""
        if self.path is None:
            return ""
        node, line = self._root, None
        for part in path:
            child = _child(node, part)
            if child is None:
                break
            line, node = child
        return f"{self.path}:{line + 1}: " if line is not None else f"{self.path}: "


def _check_repeats(path: Path, node: yaml.Node | None) -> None:
    """Check that no mapping has a name twice: the YAML parser silently drops the first."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise PrepError(f"{path}:{line}: {key.value!r} appears twice; name each once")
                seen.add(key.value)
            _check_repeats(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_repeats(path, child)


def _is_internal(part: int | str) -> bool:
    """Return whether a part of an error location names a union member or function of pydantic."""
    return isinstance(part, str) and ("[" in part or part.startswith("function-"))


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    """Return the line and the value of an entry of a mapping or sequence node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line, node.value[part]
    return None


def _names(kind: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Return the names of the settings at a path; empty if the path leaves the models."""
    for part in path:
        field = kind.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, and create missing mappings along the path.

    Raises:
        PrepError: a parent in the path is not a mapping.
    """
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise PrepError(f"--set {path}: {parent!r} is not a mapping")
    values[last] = value


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read "path=value"; the value is YAML.

    Raises:
        PrepError: there is no "=", or the value is not YAML.
    """
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise PrepError(f"--set {text}: write --set PATH=VALUE, such as --set errors=skip")
    try:
        return path, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        raise PrepError(f"--set {text}: the value is not YAML") from None
