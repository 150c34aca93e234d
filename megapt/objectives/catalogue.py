"""The registry of objectives, and how the objective of a configuration is built."""

from __future__ import annotations

from megapt.config import ObjectiveSection, Origins
from megapt.objectives.base import Context, Objective, ObjectiveError
from megapt.registry import Registry

OBJECTIVES = Registry("objective", Objective, "megapt.objectives", "megapt.objectives")  # type: ignore[type-abstract]


def build_objective(
    section: ObjectiveSection, context: Context, origins: Origins, path: str = "objective"
) -> Objective:
    """Check the section's settings and build the objective that it names.

    Args:
        section: name and settings.
        context: the corpus and its windows.
        origins: where each setting comes from, for error messages.
        path: dotted path of the section.

    Raises:
        ConfigError: for an unknown name, a wrong setting, a corpus that lacks what the objective
            needs, or a user's file that defines no objective.
    """
    kind = OBJECTIVES.find(section.name, section.file, origins, path)
    try:
        return kind.build(section.model_extra or {}, context, origins, path)
    except ObjectiveError as error:
        raise origins.error(path, str(error)) from None
