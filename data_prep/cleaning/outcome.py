"""The base class of cleaning steps, and the results of a step."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


@dataclass(frozen=True)
class Removed:
    """The result of a step that removes the text from the corpus."""

    reason: str
    """Key of the count, "step.rule", for example "gopher_quality.words"."""
    figure: str
    """The measured value, for people: "41 words, at least 50 needed"."""


@dataclass(frozen=True)
class Cleaned:
    """The result of the steps for a text that is kept."""

    text: str
    """The text after all steps."""
    changes: Counter[str]
    """Counts of the changes by "step" or "step.detail"; empty if there are none."""


# What a step does with a text: it gets the text and the counts of changes so far, adds its own
# counts, and returns the new text or why it removes the text.
Rule = Callable[[str, Counter[str]], str | Removed]


def unknown_name(name: Any, known: list[str], kind: str, title: str) -> ValidationError:
    """Return the error for an unknown name of a `kind`, with the closest known name."""
    near = get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    fault = PydanticCustomError(f"unknown_{kind}", f"there is no such {kind}; {hint}")
    error = InitErrorDetails(type=fault, loc=(str(name),), input=name)
    return ValidationError.from_exception_data(title, [error])


def check_names(model: type[BaseModel], values: Any) -> Any:
    """Return `values` if all their names are settings of the model.

    Raises:
        ValidationError: a name is unknown; the error is located at the name and suggests the
            closest known name.
    """
    if isinstance(values, dict):
        for name in values:
            if name not in model.model_fields:
                raise unknown_name(name, list(model.model_fields), "setting", model.__name__)
    return values


class StepSettings(BaseModel, ABC):
    """The settings of one cleaning step."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ClassVar[str]
    """Name of the step in a config file; not a setting."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        return check_names(cls, values)

    @abstractmethod
    def rule(self) -> Rule:
        """Return the function that applies the step to a text.

        Raises:
            PrepError: a library or file that the step needs is missing.
        """
