"""Steps that check a whole text: its length, and the scripts of its letters."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from data_prep.cleaning.outcome import Removed, Rule, StepSettings
from data_prep.cleaning.words import WordMode, Words, count_letters

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
# The keys of words.SCRIPTS.
# fmt: off
Script = Literal[
    "Latin", "Han", "Kana", "Hangul", "Cyrillic", "Arabic", "Devanagari", "Greek", "Hebrew", "Thai"
]
# fmt: on


class Length(StepSettings):
    """Remove texts that are too short or too long; at least one bound must be given."""

    name: ClassVar[str] = "length"

    min_characters: Count | None = None
    """Minimum number of characters (code points)."""
    max_characters: Count | None = None
    """Maximum number of characters."""
    min_words: Count | None = None
    """Minimum number of words."""
    max_words: Count | None = None
    """Maximum number of words."""
    min_bytes: Count | None = None
    """Minimum number of UTF-8 bytes."""
    max_bytes: Count | None = None
    """Maximum number of UTF-8 bytes."""
    words: WordMode = "whitespace"
    """How words are counted: between spaces, or each CJK character as a word ("cjk")."""

    @model_validator(mode="after")
    def _check(self) -> "Length":
        bounds = {unit: self._bounds(unit) for unit in ("characters", "words", "bytes")}
        if all(pair == (None, None) for pair in bounds.values()):
            raise PydanticCustomError("no_bound", "give a bound, such as {min_characters: 200}")
        for unit, (low, high) in bounds.items():
            if low is not None and high is not None and low > high:
                raise PydanticCustomError("bounds", f"min_{unit} is above max_{unit}")
        return self

    def _bounds(self, unit: str) -> tuple[int | None, int | None]:
        return getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")

    def rule(self) -> Rule:
        """Return the rule; reasons of removal: length.too_short, length.too_long."""
        measures: dict[str, Callable[[str], int]] = {
            "characters": len,
            "words": lambda text: len(Words(text, self.words)),
            "bytes": lambda text: len(text.encode("utf-8", "surrogatepass")),
        }
        checks = [
            (unit, measure, *self._bounds(unit))
            for unit, measure in measures.items()
            if self._bounds(unit) != (None, None)
        ]

        def apply(text: str, changes: Counter[str]) -> str | Removed:
            for unit, measure, low, high in checks:
                size = measure(text)
                if low is not None and size < low:
                    return Removed("length.too_short", f"{size} {unit}, at least {low} needed")
                if high is not None and size > high:
                    return Removed("length.too_long", f"{size} {unit}, at most {high} allowed")
            return text

        return apply


class ScriptShare(StepSettings):
    """Remove texts in other scripts: a language filter that needs no model."""

    name: ClassVar[str] = "script"

    allowed: Annotated[tuple[Script, ...], Field(strict=False, min_length=1)]
    """Scripts to keep: Latin, Han, Kana, Hangul, Cyrillic, Arabic, Devanagari, Greek, Hebrew,
    Thai."""
    min_share: Share = 0.5
    """Minimum share of letters in these scripts among all letters. The share of a text without
    letters is 0."""

    def rule(self) -> Rule:
        """Return the rule; reason of removal: script.share."""
        title = " or ".join(self.allowed)

        def apply(text: str, changes: Counter[str]) -> str | Removed:
            letters = count_letters(text)
            every = sum(letters.values())
            share = sum(letters[script] for script in set(self.allowed)) / max(every, 1)
            if share < self.min_share:
                figure = f"{share:.1%} of {every} letters are {title}"
                return Removed("script.share", f"{figure}, at least {self.min_share:.1%} needed")
            return text

        return apply
