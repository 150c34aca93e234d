"""Errors that a user can act on: what is wrong, where, and what would be right, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from megapt.config.migration import new_keys
from megapt.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)

_KEY = "[key]"
"""Stands last in pydantic's path of a problem with a key itself, not with its value."""


@dataclass
class Origins:
    """Remembers the file and line that every config value came from."""

    places: dict[str, str] = field(default_factory=dict)
    """Dotted path of a value -> ``file:line`` or ``command line``."""
    default: str = ""
    """The place to name for a value that stands nowhere, such as a missing key."""

    def of(self, path: str) -> str:
        """Return the place of `path`, or of its nearest parent that was written down."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path.rpartition(".")[0]
        return self.default

    def forget_inside(self, path: str) -> None:
        """Forget what stands inside the section at `path`, because it is named anew."""
        for place in [place for place in self.places if place.startswith(f"{path}.")]:
            del self.places[place]

    def error(self, path: str, message: str) -> ConfigError:
        """Return the error ``place: path: message``."""
        place = self.of(path)
        return ConfigError(f"{place}: {path}: {message}" if place else f"{path}: {message}")


def _nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _nested_models(argument)


def _model_at(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for key in location:
        if current is None:
            return None
        info = current.model_fields.get(str(key))
        if info is not None:
            current = next(_nested_models(info.annotation), None)
    return current


def nearest(name: str, valid: list[str]) -> str:
    """Return a hint naming the valid name closest to `name`, or all of them if none is close."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    if not valid:
        return "there are none"
    return "valid: " + ", ".join(sorted(valid))


def unknown_key(path: str, names: list[str]) -> str:
    """Return what is said of a key at `path` that is none of `names`."""
    if new := new_keys(path) & set(names):
        return f"this key is called '{new.pop()}' now"
    return f"unknown key; {nearest(path.rpartition('.')[2], names)}"


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _describe(model: type[BaseModel], problem: Mapping[str, Any], path: str) -> str:
    location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        names = list(parent.model_fields) if parent else []
        return unknown_key(path, names)
    if problem["type"] == "missing":
        return "this key is required and missing"
    if location and location[-1] == _KEY and problem["type"] == "string_type":
        return f"the name {problem['input']!r} is no text; write it in quotes"
    if problem["type"] == "model_type":
        return f"should be a section of keys and values, not {_quoted(problem['input'])}"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    if isinstance(problem["input"], dict):
        return message  # Of a whole section: its values would bury the text.
    return f"{message}, not {_quoted(problem['input'])}"


def validate(
    model: type[ModelT], values: Mapping[str, Any], origins: Origins, prefix: str = ""
) -> ModelT:
    """Build `model` from `values`.

    Args:
        model: a strict pydantic model.
        values: plain nested containers, as read from YAML.
        origins: where each value came from, for the error's text.
        prefix: the dotted path at which `values` stand in the whole configuration.

    Raises:
        ConfigError: naming the first wrong value by path, file and line.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = error.errors()
    # A misspelled key explains why another is missing.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    keys = [str(key) for key in first["loc"] if key != _KEY]
    path = ".".join([*([prefix] if prefix else []), *keys])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise origins.error(path or prefix or "config", _describe(model, first, path) + more)
