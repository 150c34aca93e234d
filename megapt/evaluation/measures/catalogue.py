"""Construction of the measures that a configuration names."""

from __future__ import annotations

from megapt.config import Origins, PartSection, Section
from megapt.evaluation.measures.base import Measure, MeasureContext
from megapt.registry import Registry, part_settings

MEASURES = Registry("measure", Measure, "megapt.evaluation.measures", "megapt.measures")  # type: ignore[type-abstract]


def find_measure(
    section: PartSection, origins: Origins, path: str
) -> tuple[type[Measure], Section]:
    """Return the class that a section names, and its settings.

    Args:
        section: name and settings.
        origins: where the settings come from, for errors.
        path: dotted path of the section.

    Raises:
        ConfigError: for an unknown name, a wrong setting, or custom code that defines no measure.
    """
    kind = MEASURES.find(section.name, section.file, origins, path)
    return kind, part_settings(section, kind.Config, origins, path)


def build_measure(
    section: PartSection, context: MeasureContext, origins: Origins, path: str
) -> Measure:
    """Build the measure that a section names.

    Args:
        section: name and settings.
        context: what the members have in common.
        origins: where the settings come from, for errors.
        path: dotted path of the section.

    Raises:
        ConfigError: for an unknown name, a wrong setting, or custom code that defines no complete
            measure.
        MeasureError: if the corpus lacks what the measure needs.
    """
    kind, own = find_measure(section, origins, path)
    measure = kind(own, context)
    if missing := [name for name in ("title", "about", "items") if not hasattr(measure, name)]:
        lacks = f"class {kind.__qualname__} lacks {', '.join(missing)}"
        raise origins.error(f"{path}.name", f"{section.file or kind.__module__}: {lacks}")
    return measure
