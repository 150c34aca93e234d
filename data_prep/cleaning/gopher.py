"""The quality and repetition rules of Gopher.

Source: Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training
Gopher", 2021, arXiv:2112.11446, section A.1.1 and Table A1. The defaults are the published
figures, which are for English.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from data_prep.cleaning.bounds import Count, Names, Share
from data_prep.cleaning.ngrams import repeated_ngrams
from data_prep.cleaning.outcome import Removed, Rule, StepSettings
from data_prep.cleaning.words import CJK, WordMode, Words

Figure = Annotated[float, Field(ge=0)]
# From n of the n-gram (a string in JSON) to the largest share.
NgramShares = dict[Annotated[int, Field(strict=False, ge=1)], Share]

_ELLIPSES = ("...", "…")


def _lines(text: str) -> list[str]:
    """Return the lines that are not empty, without white space at their ends."""
    return [line for line in map(str.strip, text.split("\n")) if line]


class GopherQuality(StepSettings):
    """Remove texts that are not prose (Rae et al. 2021, section A.1.1, "Quality Filtering").

    null turns a rule off.
    """

    name: ClassVar[str] = "gopher_quality"

    min_words: Count | None = 50
    """Minimum number of words; published: 50."""
    max_words: Count | None = 100_000
    """Maximum number of words; published: 100,000."""
    min_mean_word_length: Figure | None = 3.0
    """Minimum mean length of a word in characters; published: 3."""
    max_mean_word_length: Figure | None = 10.0
    """Maximum mean length; published: 10."""
    max_hash_ratio: Figure | None = 0.1
    """Maximum number of "#" per word; published: 0.1."""
    max_ellipsis_ratio: Figure | None = 0.1
    """Maximum number of "..." or "…" per word ("……" is one); published: 0.1."""
    max_bullet_lines: Share | None = 0.9
    """Maximum share of lines that begin with a bullet; published: 0.9."""
    max_ellipsis_lines: Share | None = 0.3
    """Maximum share of lines that end in "..." or "…"; published: 0.3."""
    min_alphabetic_words: Share | None = 0.8
    """Minimum share of words with a letter; published: 0.8."""
    min_stop_words: Count | None = 2
    """Minimum number of different stop words; published: 2."""
    stop_words: Names = ("the", "be", "to", "of", "and", "that", "have", "with")
    """The stop words, in any case; published: these eight."""
    bullets: Names = ("•", "‣", "◦", "▪", "●", "*", "-")
    """The characters that count as bullets; not published, our choice."""
    words: WordMode = "whitespace"
    """How words are counted; use "cjk" for Chinese and Japanese."""

    def rule(self) -> Rule:
        """Return the rule; reasons of removal: gopher_quality.words, .mean_word_length, ..."""
        stops = _stop_pattern(self.stop_words)

        def figures(text: str) -> Iterator[tuple[str, str, float]]:
            words = Words(text, self.words)
            count = max(len(words), 1)
            yield "words", "{:.0f} words", len(words)
            yield "mean_word_length", "mean word length {:.1f}", words.lengths.sum() / count
            yield "hash_ratio", "{:.2f} # per word", text.count("#") / count
            dots = text.count("...") + text.count("…") - text.count("……")
            yield "ellipsis_ratio", "{:.2f} ellipses per word", dots / count
            lines = _lines(text)
            total = max(len(lines), 1)
            bullets = sum(line.startswith(self.bullets) for line in lines)
            yield "bullet_lines", "{:.1%} of lines begin with a bullet", bullets / total
            dotted = sum(line.endswith(_ELLIPSES) for line in lines)
            yield "ellipsis_lines", "{:.1%} of lines end in an ellipsis", dotted / total
            letters = np.count_nonzero(words.alphabetic) / count
            yield "alphabetic_words", "{:.1%} of words have a letter", letters
            if self.min_stop_words is not None:
                found = _count_different(stops, text, self.min_stop_words)
                yield "stop_words", "{:.0f} stop words", found

        def apply(text: str, changes: Counter[str]) -> str | Removed:
            for rule, form, figure in figures(text):
                low = getattr(self, f"min_{rule}", None)
                high = getattr(self, f"max_{rule}", None)
                if low is not None and figure < low:
                    message = f"{form.format(figure)}, at least {_bound(low, form)} needed"
                    return Removed(f"{self.name}.{rule}", message)
                if high is not None and figure > high:
                    message = f"{form.format(figure)}, at most {_bound(high, form)} allowed"
                    return Removed(f"{self.name}.{rule}", message)
            return text

        return apply


def _bound(bound: float, form: str) -> str:
    """Return a threshold in the format of the figure."""
    return f"{bound:.1%}" if "%}" in form else f"{bound:g}"


def _stop_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern for stop words: whole words; CJK ones anywhere (Chinese has no spaces)."""
    cjk = re.compile(f"[{CJK}]")
    parts = []
    for word in sorted(words, key=len, reverse=True):
        first = "" if cjk.match(word[:1]) else r"\b"
        last = "" if cjk.match(word[-1:]) else r"\b"
        parts.append(first + re.escape(word) + last)
    return re.compile("|".join(parts) or "(?!)", re.IGNORECASE)


def _count_different(pattern: re.Pattern[str], text: str, enough: int) -> int:
    """Return the number of different matches; stop counting at `enough`."""
    found: set[str] = set()
    for match in pattern.finditer(text):
        found.add(match[0].lower())
        if len(found) >= enough:
            break
    return len(found)


class GopherRepetition(StepSettings):
    """Remove texts that repeat themselves (Rae et al. 2021, Table A1).

    A duplicate is the second and each later copy. Lines and paragraphs are compared without
    white space at their ends; empty ones are ignored. For n-grams, characters are those of
    words, without spaces. null turns a rule off.
    """

    name: ClassVar[str] = "gopher_repetition"

    max_duplicate_lines: Share | None = 0.30
    """Maximum share of lines that are duplicates; published: 0.30."""
    max_duplicate_paragraphs: Share | None = 0.30
    """Maximum share of paragraphs that are duplicates; published: 0.30."""
    max_duplicate_line_characters: Share | None = 0.20
    """Maximum share of characters in duplicate lines; published: 0.20."""
    max_duplicate_paragraph_characters: Share | None = 0.20
    """Maximum share of characters in duplicate paragraphs; published: 0.20."""
    max_top_ngram: NgramShares | None = Field({2: 0.20, 3: 0.18, 4: 0.16})
    """By n: maximum share of characters in copies of the most frequent n-gram, if it occurs at
    least twice; published: 2: 0.20, 3: 0.18, 4: 0.16."""
    max_duplicate_ngram: NgramShares | None = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )
    """By n: maximum share of characters in duplicate n-grams, each character counted once;
    published: 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10."""
    words: WordMode = "whitespace"
    """How words are counted; use "cjk" for Chinese and Japanese."""

    def rule(self) -> Rule:
        """Return the rule; reasons of removal: gopher_repetition.duplicate_lines, ..."""
        top, duplicate = self.max_top_ngram or {}, self.max_duplicate_ngram or {}
        smallest = min([*top, *duplicate], default=1)
        largest = max([*top, *duplicate], default=0)

        def of_parts(text: str) -> Iterator[tuple[str, float, float | None]]:
            stripped = "\n".join(map(str.strip, text.split("\n")))
            for kind, parts in (
                ("line", [part for part in stripped.split("\n") if part]),
                ("paragraph", [part for part in re.split("\n\n+", stripped) if part]),
            ):
                once = set(parts)
                share = (len(parts) - len(once)) / max(len(parts), 1)
                yield f"duplicate_{kind}s", share, getattr(self, f"max_duplicate_{kind}s")
                size = sum(map(len, parts))
                share = (size - sum(map(len, once))) / max(size, 1)
                bound = getattr(self, f"max_duplicate_{kind}_characters")
                yield f"duplicate_{kind}_characters", share, bound

        def of_ngrams(text: str) -> Iterator[tuple[str, float, float | None]]:
            words = Words(text, self.words)
            for n, repeats in repeated_ngrams(words.keys(), words.lengths, smallest, largest):
                if n in top:
                    yield f"top_{n}gram", repeats.top_share(), top[n]
                if n in duplicate:
                    yield f"duplicate_{n}gram", repeats.duplicate_share(), duplicate[n]

        def apply(text: str, changes: Counter[str]) -> str | Removed:
            for shares in (of_parts(text), of_ngrams(text)):
                for rule, share, bound in shares:
                    if bound is not None and share > bound:
                        kind = rule.replace("_", " ")
                        message = f"{share:.1%} {kind}, at most {bound:.1%} allowed"
                        return Removed(f"{self.name}.{rule}", message)
            return text

        return apply
