"""The objectives, one file each. A new file that defines an `Objective` registers itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import MappingProxyType

from megapt.config import ObjectiveSection, Origins, validate
from megapt.config.errors import nearest
from megapt.objectives.base import Context, Objective, ObjectiveError

__all__ = ["Context", "Objective", "ObjectiveError", "build_objective", "registry"]


def _subclasses(parent: type[Objective]) -> list[type[Objective]]:
    found = []
    for child in parent.__subclasses__():
        found += [child, *_subclasses(child)]
    return found


@cache
def registry() -> MappingProxyType[str, type[Objective]]:
    """Import every file of this folder and return name -> objective."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    every = _subclasses(Objective)  # type: ignore[type-abstract]  # only children are built
    found: dict[str, type[Objective]] = {}
    for objective in every:
        name = vars(objective).get("name")  # a shared base class has none of its own
        if name in found:
            raise TypeError(f"two objectives are named '{name}': {found[name]} and {objective}")
        if name is not None:
            found[name] = objective
    return MappingProxyType(found)


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
        ConfigError: for an unknown name, a wrong setting, or a corpus that lacks what is needed.
    """
    known = registry()
    if section.name not in known:
        raise origins.error(
            f"{path}.name",
            f"no objective named '{section.name}'; {nearest(section.name, [*known])}",
        )
    kind = known[section.name]
    config = validate(kind.Config, section.model_extra or {}, origins, path)
    try:
        return kind(config, context)
    except ObjectiveError as error:
        raise origins.error(path, str(error)) from None
