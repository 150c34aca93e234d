"""Errors of one line: the place, what is wrong there, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from megapt.config.migration import new_names
from megapt.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)

_KEY = "[key]"
"""Last item of pydantic's location if the problem is a key itself, not its value."""


@dataclass
class Origins:
    """The file and line of every value in a configuration."""

    places: dict[str, str] = field(default_factory=dict)
    """Dotted path of a value -> ``file:line`` or ``command line``."""
    default: str = ""
    """Place for values that are in no file, such as a missing key."""

    def of(self, path: str) -> str:
        """Return the place of `path`, or of its nearest parent with a known place."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path.rpartition(".")[0]
        return self.default

    def forget_inside(self, path: str) -> None:
        """Forget the places inside the section at `path`, because the section is replaced."""
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
    """Return the message for a key at `path` that is not among `names`."""
    for new in new_names(path):
        if new in names or "." in new:
            return f"this key is called '{new}' now"
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
        return f"the name {problem['input']!r} is not text; write it in quotes"
    if problem["type"] == "model_type":
        return f"should be a section of keys and values, not {_quoted(problem['input'])}"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    if isinstance(problem["input"], dict):
        return message  # The values of a whole section would hide the message.
    return f"{message}, not {_quoted(problem['input'])}"


def _path(problem: Mapping[str, Any], prefix: str) -> str:
    keys = [str(key) for key in problem["loc"] if key != _KEY]
    return ".".join([*([prefix] if prefix else []), *keys])


def validate(
    model: type[ModelT], values: Mapping[str, Any], origins: Origins, prefix: str = ""
) -> ModelT:
    """Build `model` from `values`.

    Args:
        model: a strict pydantic model.
        values: plain nested containers, as read from YAML.
        origins: places of the values, for error messages.
        prefix: dotted path of `values` in the whole configuration.

    Raises:
        ConfigError: if a value is wrong; the message names the first by path, file and line.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [(_path(problem, prefix), problem) for problem in error.errors()]
    # An old name explains why the new one is missing.
    path, first = next(
        (
            (path, problem)
            for path, problem in problems
            if problem["type"] == "extra_forbidden" and any(new_names(path))
        ),
        problems[0],
    )
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise origins.error(path or prefix or "config", _describe(model, first, path) + more)
