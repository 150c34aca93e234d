"""Steps on single characters: Unicode normalization, mojibake, control characters."""

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import ClassVar, Literal

from data_prep.cleaning.outcome import Rule, StepSettings
from data_prep.errors import PrepError

_SURROGATES = re.compile("[\ud800-\udfff]")

STREAM_SAFE_MARKS = 30  # combining marks in a row: UAX #15, definition D4
_JOINER = "\u034f"  # COMBINING GRAPHEME JOINER: normalization sorts no run of marks across it


@cache
def _long_runs() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return a fast, approximate pattern for long runs of combining marks, and the exact one.

    The fast pattern finds every long run, but also others, because it treats all characters
    beyond U+FFFF as marks. The exact pattern finds the first 30 marks of a longer run. It is
    slow, because of the many ranges of marks beyond U+FFFF.
    """
    marks = "".join(filter(unicodedata.combining, map(chr, range(0x110000))))
    some = f"[{''.join(mark for mark in marks if mark < chr(0x10000))}\U00010000-\U0010ffff]"
    suspect = re.compile(f"{some}{some}{{{STREAM_SAFE_MARKS}}}")
    return suspect, re.compile(f"[{marks}]{{{STREAM_SAFE_MARKS}}}(?=[{marks}])")


class Unicode(StepSettings):
    """Unicode normalization (UAX #15)."""

    name: ClassVar[str] = "unicode"

    form: Literal["NFC", "NFKC"] = "NFC"
    """The form "NFC" writes each letter with its accents in one way. "NFKC" also replaces
    compatibility characters (full-width letters, ligatures, superscripts), which loses meaning,
    for example that of "10³"."""

    def rule(self) -> Rule:
        """Return the rule; it counts "unicode": changed texts."""
        # Sorting a run of combining marks takes quadratic time. Runs longer than in any language
        # are split, as in the Stream-Safe Text of UAX #15, section 13.
        suspect, long_run = _long_runs()

        def normalize(text: str) -> str:
            if suspect.search(text):
                text = long_run.sub(rf"\g<0>{_JOINER}", text)
            return unicodedata.normalize(self.form, text)

        def apply(text: str, changes: Counter[str]) -> str:
            if text.isascii():
                return text
            normal = normalize(text)
            # Some characters decompose to several marks.
            while suspect.search(normal) and long_run.search(normal):
                normal = normalize(normal)
            changes[self.name] += normal != text
            return normal

        return apply


class Mojibake(StepSettings):
    """Repair text that was decoded with the wrong encoding ("sÃ³" for "só"), with ftfy.

    It uses ftfy's `fix_encoding` with its four repairs: `restore_byte_a0`,
    `replace_lossy_sequences`, `decode_inconsistent_utf8`, `fix_c1_controls`. All other functions
    of ftfy (HTML entities, quotes, ligatures, widths) change correct text and are off.
    """

    name: ClassVar[str] = "mojibake"

    def rule(self) -> Rule:
        """Return the rule; it counts "mojibake": repaired lines."""
        try:
            from ftfy import TextFixerConfig, fix_encoding
            from ftfy.badness import is_bad
        except ImportError:
            raise PrepError(
                "the cleaning step mojibake needs ftfy; `pip install megapt[clean]`"
            ) from None
        config = TextFixerConfig(explain=False)

        def repair(line: str) -> str:
            if not is_bad(line):
                return line
            fixed = fix_encoding(line, config)
            return line if _SURROGATES.search(fixed) else fixed

        def apply(text: str, changes: Counter[str]) -> str:
            # Most texts have no mojibake, and ftfy's own test for it is cheap.
            if text.isascii() or not is_bad(text):
                return text
            lines = text.split("\n")
            fixed = [repair(line) for line in lines]
            if repaired := sum(old != new for old, new in zip(lines, fixed, strict=True)):
                changes[self.name] += repaired
            return "\n".join(fixed)

        return apply


_LINE_BREAKS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_ESCAPES = re.compile("\x1b\\[[0-?]{0,32}[ -/]{0,8}[@-~]")
_KINDS = {
    "control": "\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff",
    "zero_width": "\xad\u200b\u2060-\u2064\ufeff",
    "joiners": "\u200c\u200d",
    "bidi": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "private_use": "\ue000-\uf8ff\U000f0000-\U0010ffff",
}


class ControlCharacters(StepSettings):
    """Remove invisible characters and replace line breaks of every kind by newlines.

    Always removed: C0 and C1 control characters (including NUL) other than newline and tab;
    terminal escape sequences, such as color codes; halves of surrogate pairs; noncharacters.
    """

    name: ClassVar[str] = "control_characters"

    zero_width: bool = True
    """Remove zero-width spaces, byte order marks and soft hyphens."""
    joiners: bool = False
    """Remove the zero-width joiner and non-joiner, which Persian, Indic scripts and emoji need."""
    bidi: bool = True
    """Remove marks, overrides and isolates of writing direction."""
    private_use: bool = False
    """Remove characters of the private use areas."""

    def rule(self) -> Rule:
        """Return the rule; it counts line_breaks, escapes and each removed kind of characters."""
        kinds = {
            f"{self.name}.{kind}": re.compile(f"[{characters}]")
            for kind, characters in _KINDS.items()
            if kind == "control" or getattr(self, kind)
        }
        first = {f"{self.name}.line_breaks": (_LINE_BREAKS, "\n")}
        first[f"{self.name}.escapes"] = (_ESCAPES, "")
        replacements = first | {kind: (pattern, "") for kind, pattern in kinds.items()}
        members = "".join(pattern.pattern[1:-1] for pattern in kinds.values())
        suspect = re.compile(f"[{members}\r\v\f\x85\u2028\u2029]")

        def apply(text: str, changes: Counter[str]) -> str:
            if not suspect.search(text):
                return text
            for kind, (pattern, replacement) in replacements.items():
                text, count = pattern.subn(replacement, text)
                if count:
                    changes[kind] += count
            return text

        return apply
