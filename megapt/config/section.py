"""Base classes and types of all sections. Sections are strict and immutable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


def as_name(name: str) -> str:
    """Return `name` if it can be a file name.

    Raises:
        ValueError: if it cannot.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            "a name may have only letters, digits, _, - and ., and may not start with - or ."
        )
    return name


MemberName = Annotated[str, AfterValidator(as_name)]

Axis = Literal["raw_tokens", "positions", "targets", "model_flops", "wall_clock"]
"""The budget axes of a run. Units: tokens, positions, predictions, FLOPs, seconds."""


class Section(BaseModel):
    """Base class of all sections: refuses unknown keys and wrong types; values cannot change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class PartSection(Section):
    """A section that names a part of megapt or a custom part. The part checks the other keys."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Name of the part."""
    file: str | None = None
    """Python file that defines a custom part; a relative path starts at the folder of the YAML
    file. None: megapt or an installed package defines the part."""

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str | None) -> str | None:
        # Other commands open the run from other folders. Paths from YAML are already absolute.
        return None if file is None else str(Path(file).resolve())


def _as_section(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_written(part: PartSection) -> Any:
    return part.name if part.file is None and not part.model_extra else dict(part)


Part = Annotated[PartSection, BeforeValidator(_as_section), PlainSerializer(_as_written)]
"""A part inside another section: only its name, or a section."""


def _named_once(parts: list[PartSection]) -> list[PartSection]:
    names = [as_name(part.name) for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"names '{twice}' twice")
    return parts


Parts = Annotated[list[Part], AfterValidator(_named_once)]
"""Several parts with different names, which also name their stored files."""


def is_due(step: int, every: int) -> bool:
    """Return whether an action with the interval `every` is due after `step`; 0 means never."""
    return every > 0 and step % every == 0
