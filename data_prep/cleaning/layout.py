"""Steps on white space and on lines."""

import re
from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from data_prep.cleaning.bounds import Count, Names
from data_prep.cleaning.outcome import Rule, StepSettings
from data_prep.cleaning.words import WordMode, count_words

_BLANKS = "\t\xa0\u1680\u2000-\u200a\u202f\u205f"
_IDEOGRAPHIC = "\u3000"


def _expand(ranges: str) -> str:
    return "".join(chr(code) for code in range(0x3001) if re.match(f"[{ranges}]", chr(code)))


class Whitespace(StepSettings):
    """Normalize blanks (spaces, tabs, no-break and typographic spaces) and empty lines."""

    name: ClassVar[str] = "whitespace"

    collapse: bool = True
    """Replace each run of blanks inside a line by one space."""
    leading: bool = True
    """Strip blanks at the start of lines; set false for code and verse."""
    trailing: bool = True
    """Strip blanks at the end of lines."""
    max_blank_lines: Count | None = 1
    """Maximum number of consecutive empty lines; null keeps all. Empty lines at both ends of the
    text are always dropped."""
    ideographic_space: bool = True
    """Treat U+3000, which Chinese uses for indents, as a blank."""

    def rule(self) -> Rule:
        """Return the rule; it counts whitespace.runs, .line_ends and .blank_lines."""
        odd = _BLANKS + (_IDEOGRAPHIC if self.ideographic_space else "")
        blanks = " " + _expand(odd)
        # Each pattern begins with a plain character or class, which the regex engine finds fast.
        odd_blanks = re.compile(f"[{odd}][ {odd}]*")
        spaces = re.compile("  [ ]*")
        limit = self.max_blank_lines
        extra = re.compile("\n" * (limit + 2) + "\n*") if limit is not None else None
        kept = "\n" * (limit + 1) if limit is not None else ""

        def inside(line: str) -> tuple[str, int]:
            line, first = odd_blanks.subn(" ", line)
            line, second = spaces.subn(" ", line)
            return line, first + second

        def strip(line: str) -> str:
            line = line.lstrip(blanks) if self.leading else line
            return line.rstrip(blanks) if self.trailing else line

        def collapse_after_indent(lines: list[str], changes: Counter[str]) -> list[str]:
            made = []
            for line in lines:
                body = line.lstrip(blanks)
                collapsed, count = inside(body)
                changes["whitespace.runs"] += count
                made.append(line[: len(line) - len(body)] + collapsed)
            return made

        def apply(text: str, changes: Counter[str]) -> str:
            if self.leading or self.trailing:
                lines = text.split("\n")
                stripped = list(map(strip, lines))
                changes["whitespace.line_ends"] += sum(map(str.__ne__, lines, stripped))
                text = "\n".join(stripped)
            if self.collapse and self.leading:
                text, count = inside(text)
                changes["whitespace.runs"] += count
            elif self.collapse:
                text = "\n".join(collapse_after_indent(text.split("\n"), changes))
            size = len(text)
            text = text.strip("\n")
            changes["whitespace.blank_lines"] += size - len(text)
            if extra is not None:
                size = len(text)
                text = extra.sub(kept, text)
                changes["whitespace.blank_lines"] += size - len(text)
            return text

        return apply


class Lines(StepSettings):
    """Drop lines, but keep empty lines. A text without lines left is removed as "empty"."""

    name: ClassVar[str] = "lines"

    min_words: Count | None = None
    """Minimum number of words of a line."""
    min_characters: Count | None = None
    """Minimum number of characters of a line, without white space at its ends."""
    terminal_marks: Names | None = None
    """A line must end in one of these, and not in "..."; null turns the rule off."""
    javascript: bool = True
    """Drop lines with the word "javascript"."""
    curly_bracket: bool = False
    """Drop lines with "{"."""
    max_copies: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of copies of a line in the text; further ones are dropped. null keeps all."""
    words: WordMode = "whitespace"
    """How words are counted: between spaces, or each CJK character as a word ("cjk")."""

    @model_validator(mode="after")
    def _check(self) -> "Lines":
        limits = (self.min_words, self.min_characters, self.terminal_marks, self.max_copies)
        if all(limit is None for limit in limits) and not (self.javascript or self.curly_bracket):
            raise PydanticCustomError("no_rule", "every rule is off; remove the step")
        return self

    def rule(self) -> Rule:
        """Return the rule; it counts lines.too_few_words, .too_short, .terminal_mark, ..."""

        def fault(line: str, lowered: str, seen: Counter[str]) -> str | None:
            if self.min_characters is not None and len(line) < self.min_characters:
                return "too_short"
            if self.terminal_marks is not None and not ends_sentence(line, self.terminal_marks):
                return "terminal_mark"
            if self.javascript and "javascript" in lowered:
                return "javascript"
            if self.curly_bracket and "{" in line:
                return "curly_bracket"
            if self.min_words is not None and count_words(line, self.words) < self.min_words:
                return "too_few_words"
            if self.max_copies is not None:
                seen[line] += 1
                if seen[line] > self.max_copies:
                    return "copies"
            return None

        def apply(text: str, changes: Counter[str]) -> str:
            lines = text.split("\n")
            # Lower-casing changes no newline, so both have the same lines.
            lowered = text.lower().split("\n") if self.javascript else lines
            kept, seen = [], Counter[str]()
            for line, low in zip(lines, lowered, strict=True):
                bare = line.strip()
                if bare and (reason := fault(bare, low, seen)):
                    changes[f"lines.{reason}"] += 1
                else:
                    kept.append(line)
            return "\n".join(kept) if len(kept) < len(lines) else text

        return apply


def ends_sentence(line: str, marks: tuple[str, ...]) -> bool:
    """Return whether a line ends in one of the marks and not in "...", as in C4's code."""
    return line.endswith(marks) and not line.endswith("...")
