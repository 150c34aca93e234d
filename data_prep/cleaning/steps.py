"""The list of cleaning steps, in the form of a config file."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
)
from pydantic_core import PydanticCustomError

from data_prep.cleaning.bounds import Length, ScriptShare
from data_prep.cleaning.c4 import C4
from data_prep.cleaning.characters import ControlCharacters, Mojibake, Unicode
from data_prep.cleaning.gopher import GopherQuality, GopherRepetition
from data_prep.cleaning.layout import Lines, Whitespace
from data_prep.cleaning.outcome import StepSettings, unknown_name
from data_prep.cleaning.personal import PersonalData

STEPS: dict[str, type[StepSettings]] = {
    step.name: step
    for step in (
        *(Unicode, Mojibake, ControlCharacters, Whitespace, Lines, Length),
        *(GopherQuality, GopherRepetition, C4, ScriptShare, PersonalData),
    )
}


def _as_list(items: Any) -> Any:
    if not isinstance(items, list | tuple):
        raise PydanticCustomError("steps_form", "write a list of steps: `- length: {...}`")
    return items


def _as_mapping(item: Any) -> Any:
    """Convert "name" and "{name: null}" to "{name: {}}"."""
    if isinstance(item, StepSettings):
        return item
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise PydanticCustomError(
            "step_form", "a step is a name, or one name with its settings: `- length: {...}`"
        )
    [(name, settings)] = item.items()
    if name not in STEPS:
        raise unknown_name(name, list(STEPS), "step", "cleaning")
    return {name: {} if settings is None else settings}


def _name(item: Any) -> str:
    return item.name if isinstance(item, StepSettings) else str(next(iter(item)))


def _settings(item: Any) -> Any:
    if isinstance(item, StepSettings):
        return item
    [(name, settings)] = item.items()
    if not isinstance(settings, dict):
        message = f"the settings of a step are a mapping: `- {name}: {{...}}`"
        raise PydanticCustomError("settings_form", "{message}", {"message": message})
    return settings


def _write(step: StepSettings) -> dict[str, Any]:
    return {step.name: step.model_dump(mode="json")}


def _refuse_repeats(steps: tuple[StepSettings, ...]) -> tuple[StepSettings, ...]:
    for step, following in pairwise(steps):
        if step == following:
            message = f"{step.name} is listed twice in a row with the same settings; list it once"
            raise PydanticCustomError("step_twice", "{message}", {"message": message})
    return steps


_T = TypeVar("_T")
_Named = Annotated[_T, BeforeValidator(_settings)]

Step = Annotated[
    Annotated[_Named[Unicode], Tag(Unicode.name)]
    | Annotated[_Named[Mojibake], Tag(Mojibake.name)]
    | Annotated[_Named[ControlCharacters], Tag(ControlCharacters.name)]
    | Annotated[_Named[Whitespace], Tag(Whitespace.name)]
    | Annotated[_Named[Lines], Tag(Lines.name)]
    | Annotated[_Named[Length], Tag(Length.name)]
    | Annotated[_Named[GopherQuality], Tag(GopherQuality.name)]
    | Annotated[_Named[GopherRepetition], Tag(GopherRepetition.name)]
    | Annotated[_Named[C4], Tag(C4.name)]
    | Annotated[_Named[ScriptShare], Tag(ScriptShare.name)]
    | Annotated[_Named[PersonalData], Tag(PersonalData.name)],
    Discriminator(_name),
    BeforeValidator(_as_mapping),
    PlainSerializer(_write),
]

# The steps in the order in which they run. A step may be listed more than once, for example
# `length` before and after `lines`. Then both count under the same names.
CleaningSteps = Annotated[
    tuple[Step, ...],
    Field(strict=False),
    AfterValidator(_refuse_repeats),
    BeforeValidator(_as_list),
]


def pinned(steps: Sequence[StepSettings]) -> tuple[StepSettings, ...]:
    """Return the steps with the checksum of every file that they read.

    So the settings fully determine what the steps do to a text, even if a file changes later.

    Raises:
        PrepError: a file cannot be read, or its checksum is not the one in the settings.
    """
    return tuple(step.pinned() if isinstance(step, C4) else step for step in steps)
