"""What every section is made of: strict, immutable, each value documented where it stands."""

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
    """Return a name that may be that of a file.

    Raises:
        ValueError: it may not.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            "a name should be of letters, digits, _, - and . alone, with no - or . in front"
        )
    return name


MemberName = Annotated[str, AfterValidator(as_name)]

Axis = Literal["raw_tokens", "positions", "targets", "model_flops", "wall_clock"]
"""The axes on which every run is counted. Units: tokens, positions, predictions, FLOPs, seconds."""


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are refused, values cannot change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class PartSection(Section):
    """A section that names a part, megapt's or the user's own, which checks what is extra."""

    model_config = ConfigDict(extra="allow")

    name: str
    file: str | None = None
    """Python file that defines the part, if megapt does not; beside the YAML file that names it,
    unless the path is absolute."""

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str | None) -> str | None:
        # A run is opened later from other folders. What stands in YAML is absolute already.
        return None if file is None else str(Path(file).resolve())


def _as_section(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_written(part: PartSection) -> Any:
    return part.name if part.file is None and not part.model_extra else dict(part)


Part = Annotated[PartSection, BeforeValidator(_as_section), PlainSerializer(_as_written)]
"""A part inside another section: its name alone, or a section."""


def _named_once(parts: list[PartSection]) -> list[PartSection]:
    names = [as_name(part.name) for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"names '{twice}' twice")
    return parts


Parts = Annotated[list[Part], AfterValidator(_named_once)]
"""Several parts, each of a name of its own, by which their files are kept."""


def is_due(step: int, every: int) -> bool:
    """Whether what is done every so many steps is done after this one; 0 is never."""
    return every > 0 and step % every == 0
