"""Loading of a configuration: YAML files composed by name, then ``key=value`` overrides.

A section may be written out, named (``model: modern`` reads ``configs/model/modern.yaml``), or
both (``model: {base: modern, dropout: 0.2}``). A name is looked up in the folder of its section
next to the file that uses it or one level higher, then among the presets of megapt.
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
"""Path of a member of a comparison or of a mixture. A mixture may be a member itself."""
_PART = re.compile(
    rf"objective|{_MEMBER.pattern}|optimizer|training\.attention|monitor\.trackers\.\d+|measures\.\d+"
)
"""Path of a section that names a part. The part may be defined in a custom Python file."""
_SECTIONS = ("data", "model", "objective", "loss", "optimizer", "schedule", "training")


def _read_yaml(file: Path) -> tuple[dict[str, Any], yaml.Node | None]:
    """Return the values of a file, and its YAML nodes, which hold line numbers."""
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
    """Return the folder of presets for the section at `path`; None if it cannot be a preset."""
    if _MEMBER.fullmatch(path):
        return "objective"
    return path if path in _SECTIONS else None


def _holds_members(path: str) -> bool:
    """Return whether the value at `path` maps names of members to their sections."""
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
    """Replace a section that is named, or has ``base:``, by its content."""
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
            if _names_preset(own[key]):
                # Another preset replaces the section of the base completely.
                base.pop(key, None)
                origins.forget_inside(key)
        for key in _lists(own, f"{path}." if path else ""):
            origins.forget_inside(key)  # A list replaces the whole list of the base.
        origins.places.update(places)
        return _merge(base, own)
    return value


def _lists(values: Mapping[str, Any], prefix: str) -> Iterable[str]:
    """Yield the paths of all lists inside `values`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _lists(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}"


def _load_named(
    name: str,
    key: str,
    path: str,
    kind: str,
    user: Path,
    origins: Origins,
    users: tuple[Path, ...],
) -> dict[str, Any]:
    """Read the file that the value `name` of `key` in the file `user` refers to.

    `users` is the chain of files that leads to `user`, each naming the next.
    """
    users = (*users, user)
    file = _preset(kind, name, path, user, origins)
    resolved = [used.resolve() for used in users]
    if file.resolve() in resolved:
        cycle = [used.stem for used in users[resolved.index(file.resolve()) :]]
        raise origins.error(
            key,
            f"'{name}' is {'this file itself' if len(cycle) == 1 else 'already being read'}: "
            f"{' -> '.join([*cycle, cycle[0]])} is a cycle",
        )
    return _load(file, path, kind, origins, users)


def _find_files(value: Any, path: str, user: Path) -> Any:
    """Make paths of Python files absolute; they are relative to the YAML file `user`."""
    if isinstance(value, list):
        return [_find_files(item, f"{path}.{n}", user) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    prefix = f"{path}." if path else ""
    found = {key: _find_files(item, f"{prefix}{key}", user) for key, item in value.items()}
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


def _names_preset(section: Any) -> bool:
    return isinstance(section, str) or (isinstance(section, dict) and "base" in section)


def _load(
    file: Path, prefix: str, kind: str, origins: Origins, users: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Read one file as the section at `prefix`, with all files that it names.

    `users` is the chain of files that leads here, each naming the next.
    """
    values, root = _read_yaml(file)
    for path, line in _lines(root, f"{prefix}." if prefix else ""):
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
        raise ConfigError(f"command line: '{override}' should have the form key=value")
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
    replaced = _names_preset(named) if kind is not None else _holds_members(key)
    parent: Any = values
    for part in parents:
        parent = parent.get(part) if isinstance(parent, dict) else None
        if parent is not None and not isinstance(parent, dict):
            raise ConfigError(f"command line: '{override}': '{part}' holds no keys")
    if replaced:
        # The override replaces the whole section. New members of a mixture also remove the
        # weights and the schedule of the old members.
        removed = [last] if kind is not None or not parents else [last, "weights", "schedule"]
        for name in removed if parent is not None else ():
            parent.pop(name, None)
            origins.forget_inside(".".join([*parents, name]))
    if isinstance(named, list):
        origins.forget_inside(key)
    origins.places[key] = "command line"
    if kind is not None:
        if isinstance(named, str) and named.endswith((".yaml", ".yml")):
            user = Path("command line")  # The file is looked up from the working folder.
        holder[last] = _expand(_find_files(named, key, user), key, kind, user, origins)
    elif replaced and isinstance(named, dict):
        for name, member in _find_files(named, key, user).items():
            named[name] = _expand(member, f"{key}.{name}", "objective", user, origins)
    try:
        return _merge(values, {str(name): value for name, value in change.items()})
    except TypeError:
        raise ConfigError(f"command line: '{override}': a list cannot replace a section") from None


def _priority(override: str) -> tuple[bool, int]:
    """Return the sort key of an override: whole sections come first, outer before inner ones."""
    key = override.partition("=")[0]
    if _holds_members(key) or _kind(key) is not None:
        return False, key.count(".")
    return True, 0


def load_config(
    schema: type[ConfigT], file: str | Path, overrides: Sequence[str] = ()
) -> tuple[ConfigT, Origins]:
    """Read, compose, override and check one configuration.

    Args:
        schema: RunConfig or CompareConfig, whichever the file describes.
        file: YAML file.
        overrides: words ``dotted.key=value``; values are YAML. A word may replace a section by a
            preset (``objective=mlm``); such words are applied first, wherever they occur.

    Returns:
        The checked configuration, and the places of its values for later error messages.

    Raises:
        ConfigError: for a missing file, an unknown or misspelled key, a wrong type or value.
    """
    file = Path(file)
    origins = Origins(default=str(file))
    kind = "compare" if schema is CompareConfig else "run"
    values = _load(file, "", kind, origins)
    for override in sorted(overrides, key=_priority):
        values = _apply(values, override, file, origins)
    try:
        container = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]}") from None
    assert isinstance(container, dict)
    plain = {str(key): value for key, value in container.items()}
    return validate(schema, plain, origins), origins
