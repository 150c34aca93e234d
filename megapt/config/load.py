"""Reads a configuration: YAML files composed by name, then overridden by ``key=value`` words.

A section may be written out, named (``model: modern`` reads ``configs/model/modern.yaml``), or
both (``model: {base: modern, dropout: 0.2}``). Names are looked up in the folder of that section
beside or above the file that uses them, then among the presets that ship with megapt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from megapt.config.errors import Origins, nearest, validate
from megapt.config.run import CompareConfig, RunConfig
from megapt.errors import ConfigError

ConfigT = TypeVar("ConfigT", RunConfig, CompareConfig)

_PACKAGE = Path(__file__).resolve().parents[1]
_PRESETS = (_PACKAGE / "_configs", _PACKAGE.parent / "configs")
_KEY = re.compile(r"[\w-]+(\.[\w-]+)*")
_MEMBER = re.compile(r"(objective\.)?members\.[^.]+(\.members\.[^.]+)*")
"""Path of a member: of a comparison or of a mixture, which may be a member itself."""
_PART = re.compile(
    rf"objective|{_MEMBER.pattern}|optimizer|training\.attention|monitor\.trackers\.\d+|measures\.\d+"
)
"""Path of what names a part, which may be in a Python file of the user's own."""
_SECTIONS = ("data", "model", "objective", "loss", "optimizer", "schedule", "training")


def _read_yaml(file: Path) -> tuple[dict[str, Any], yaml.Node | None]:
    """Return the values of a file, and its nodes, which know their lines."""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text)
        if root is not None and not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{file}: should hold 'key: value' lines")
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such config file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder; give a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 (byte {error.start})") from None
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place}: not valid YAML: {reason}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}, root


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterable[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            yield path, key.start_mark.line + 1
            yield from _lines(value, f"{path}.")
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield f"{prefix}{number}", item.start_mark.line + 1
            yield from _lines(item, f"{prefix}{number}.")


def _preset(section: str, name: str, path: str, user: Path, origins: Origins) -> Path:
    if name.endswith((".yaml", ".yml")):
        return user.parent / name
    folders = [user.parent / section, user.parent.parent / section]
    folders += [root / section for root in _PRESETS]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = {file.stem for folder in folders for file in folder.glob("*.yaml")}
    hint = nearest(name, sorted(known)) if known else f"no folder '{section}' near {user}"
    raise origins.error(path or "base", f"no preset named '{name}'; {hint}")


def _kind(path: str) -> str | None:
    """Return the preset folder that a value at `path` may name, None if it is no section."""
    if _MEMBER.fullmatch(path):
        return "objective"
    return path if path in _SECTIONS else None


def _holds_members(path: str) -> bool:
    """Whether the value at `path` has a section for each member."""
    parent, _, last = path.rpartition(".")
    return last == "members" and (not parent or _kind(parent) == "objective")


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = OmegaConf.merge(OmegaConf.create(dict(base)), OmegaConf.create(dict(top)))
    container = OmegaConf.to_container(merged, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _expand(
    value: Any, path: str, kind: str, user: Path, origins: Origins, users: tuple[Path, ...] = ()
) -> Any:
    """Replace a named section, or one with ``base:``, by its content."""
    if isinstance(value, str):
        return _load_named(value, path, path, kind, user, origins, users)
    if isinstance(value, dict) and kind == "objective":
        value = _expand_members(value, path, user, origins, users)
    if isinstance(value, dict) and "base" in value:
        own = {key: item for key, item in value.items() if key != "base"}
        key = f"{path}.base" if path else "base"
        if not isinstance(value["base"], str):
            raise origins.error(key, "should be the name of a preset")
        places = dict(origins.places)
        base = _load_named(value["base"], key, path, kind, user, origins, users)
        for key in [] if path else filter(_kind, own):
            if _renames(own[key]):
                # The section is named anew: nothing of the old one may shine through.
                base.pop(key, None)
                origins.forget_inside(key)
        for key in _lists(own, f"{path}." if path else ""):
            origins.forget_inside(key)  # A list takes the place of the other's whole.
        origins.places.update(places)
        return _merge(base, own)
    return value


def _lists(values: Mapping[str, Any], lead: str) -> Iterable[str]:
    """Yield the paths at which lists stand."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _lists(value, f"{lead}{key}.")
        elif isinstance(value, list):
            yield f"{lead}{key}"


def _load_named(
    name: str,
    key: str,
    path: str,
    kind: str,
    user: Path,
    origins: Origins,
    users: tuple[Path, ...],
) -> dict[str, Any]:
    """Read the file that the value `name` of `key` in the file `user` stands for.

    `users` are the files that led to `user`, each naming the next.
    """
    users = (*users, user)
    file = _preset(kind, name, path, user, origins)
    resolved = [used.resolve() for used in users]
    if file.resolve() in resolved:
        circle = [used.stem for used in users[resolved.index(file.resolve()) :]]
        raise origins.error(
            key,
            f"'{name}' is {'this file itself' if len(circle) == 1 else 'a file that led here'}: "
            f"{' -> '.join([*circle, circle[0]])} would never end",
        )
    return _load(file, path, kind, origins, users)


def _find_files(value: Any, path: str, user: Path) -> Any:
    """Find the Python files of parts beside the YAML file `user`, which names them at `path`."""
    if isinstance(value, list):
        return [_find_files(item, f"{path}.{n}", user) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    lead = f"{path}." if path else ""
    found = {key: _find_files(item, f"{lead}{key}", user) for key, item in value.items()}
    if _PART.fullmatch(path) and isinstance(found.get("file"), str):
        found["file"] = str((user.parent / found["file"]).resolve())
    return found


def _expand_members(
    values: dict[str, Any], path: str, user: Path, origins: Origins, users: tuple[Path, ...]
) -> dict[str, Any]:
    """Expand the members of a mixture."""
    if not isinstance(values.get("members"), dict):
        return values
    members = {
        name: _expand(member, f"{path}.members.{name}", "objective", user, origins, users)
        for name, member in values["members"].items()
    }
    return {**values, "members": members}


def _renames(section: Any) -> bool:
    return isinstance(section, str) or (isinstance(section, dict) and "base" in section)


def _load(
    file: Path, prefix: str, kind: str, origins: Origins, users: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Read one file whose values stand at `prefix`, with everything that it names.

    `users` are the files that led here, each naming the next.
    """
    values, root = _read_yaml(file)
    lead = f"{prefix}." if prefix else ""
    for path, line in _lines(root, lead):
        origins.places[path] = f"{file}:{line}"
    values = _find_files(values, prefix, file)
    values = _expand(values, prefix, kind, file, origins, users)
    if not prefix:
        _expand_sections(values, file, origins)
    return dict(values)


def _expand_sections(values: dict[str, Any], user: Path, origins: Origins) -> None:
    for key, value in values.items():
        if (kind := _kind(key)) is not None:
            values[key] = _expand(value, key, kind, user, origins)
        elif key == "members" and isinstance(value, dict):
            for name, member in value.items():
                value[name] = _expand(member, f"members.{name}", "objective", user, origins)


def _apply(values: dict[str, Any], override: str, user: Path, origins: Origins) -> dict[str, Any]:
    key, sign, _ = override.partition("=")
    if not sign or not _KEY.fullmatch(key):
        raise ConfigError(f"command line: '{override}' should read key=value")
    try:
        change = OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"command line: '{override}': {str(error).splitlines()[0]}") from None
    assert isinstance(change, dict)
    *parents, last = key.split(".")
    holder: Any = change
    for part in parents:
        holder = holder[part]
    kind, named = _kind(key), holder[last]
    anew = _renames(named) if kind is not None else _holds_members(key)
    parent: Any = values
    for part in parents:
        parent = parent.get(part) if isinstance(parent, dict) else None
        if parent is not None and not isinstance(parent, dict):
            raise ConfigError(f"command line: '{override}': '{part}' holds no keys")
    if anew:
        # The whole section is named anew: nothing of the old one may shine through, nor what a
        # mixture says of members that are gone.
        gone = [last] if kind is not None or not parents else [last, "weights", "schedule"]
        for name in gone if parent is not None else ():
            parent.pop(name, None)
            origins.forget_inside(".".join([*parents, name]))
    if isinstance(named, list):
        origins.forget_inside(key)
    origins.places[key] = "command line"
    if kind is not None:
        if isinstance(named, str) and named.endswith((".yaml", ".yml")):
            user = Path("command line")  # so that the file is looked up from the working folder
        holder[last] = _expand(_find_files(named, key, user), key, kind, user, origins)
    elif anew and isinstance(named, dict):
        for name, member in _find_files(named, key, user).items():
            named[name] = _expand(member, f"{key}.{name}", "objective", user, origins)
    try:
        return _merge(values, {str(name): value for name, value in change.items()})
    except TypeError:
        raise ConfigError(
            f"command line: '{override}': a list cannot take the place of a section"
        ) from None


def _turn(override: str) -> tuple[bool, int]:
    """Return when an override is applied: first what names whole sections, outer ones before."""
    key = override.partition("=")[0]
    if _holds_members(key) or _kind(key) is not None:
        return False, key.count(".")
    return True, 0


def load_config(
    schema: type[ConfigT], file: str | Path, overrides: Sequence[str] = ()
) -> tuple[ConfigT, Origins]:
    """Read, compose, override and check one configuration.

    Args:
        schema: what the file describes: RunConfig or CompareConfig.
        file: a YAML file.
        overrides: words ``dotted.key=value``; values are YAML. A section may be named anew
            (``objective=mlm``); such words are applied first, whatever their place.

    Raises:
        ConfigError: for a missing file, an unknown or misspelt key, a wrong type or value.
    """
    file = Path(file)
    origins = Origins(default=str(file))
    kind = "compare" if schema is CompareConfig else "run"
    values = _load(file, "", kind, origins)
    for override in sorted(overrides, key=_turn):
        values = _apply(values, override, file, origins)
    try:
        container = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]}") from None
    assert isinstance(container, dict)
    plain = {str(key): value for key, value in container.items()}
    return validate(schema, plain, origins), origins
