"""The rules of C4.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", 2020, arXiv:1910.10683, section 2.2. The paper was published with two pairs of
figures: JMLR 21(140) requires 5 sentences per page and 3 words per line, which are the defaults
here. The latest version on arXiv and the released code (TensorFlow Datasets, c4_utils.py), which
produced the C4 in circulation, require 3 sentences and 5 words.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from data_prep.cleaning.bounds import Count, Names
from data_prep.cleaning.layout import ends_sentence
from data_prep.cleaning.outcome import Removed, Rule, StepSettings
from data_prep.cleaning.words import CJK, WordMode, count_words
from data_prep.errors import PrepError

_CITATION = re.compile(r"\[(?:\d{0,4}|edit|citation needed)\]")
# The end of a sentence: its marks, closing quotes, and white space unless the mark is Chinese.
# The lookahead is limited to eight quotes, so that no text takes long.
_END = re.compile(r"[.!?](?=[\"'”’)\]]{0,8}(?:\s|\Z))|[。！？](?![。！？])")


class C4(StepSettings):
    """Drop lines that are not prose, then remove texts of which too little is left.

    Each rule is one of the list in section 2.2, in the order of the released code; null or
    false turns it off. Not included: the de-duplication of three-sentence spans, and langdetect
    (see the step `script`).
    """

    name: ClassVar[str] = "c4"

    terminal_marks: Names | None = (".", "!", "?", '"', "”")
    """A line must end in one of these, and not in "..." (a rule of the released code); published:
    full stop, exclamation mark, question mark, end quotation mark."""
    min_words: Count | None = 3
    """Minimum number of words of a line; published: 3 (JMLR) or 5 (arXiv, code)."""
    min_sentences: Count | None = 5
    """Minimum number of sentences left; published: 5 (JMLR) or 3 (arXiv, code)."""
    lorem_ipsum: bool = True
    """Remove texts with the phrase "lorem ipsum"."""
    javascript: bool = True
    """Drop lines with the word "javascript"."""
    curly_bracket: bool = True
    """Remove texts with "{"."""
    citations: bool = True
    """Delete marks such as [1], [edit] and [citation needed]."""
    # fmt: off
    policy_phrases: Names = (
        "terms of use", "privacy policy", "cookie policy",
        "uses cookies", "use of cookies", "use cookies",
    )
    """Drop lines with one of these; published: these six."""
    # fmt: on
    bad_words_file: str | None = None
    """Remove texts with a word of this file (one word per line); no such file is included."""
    bad_words_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Checksum that the file must have; a build fills it in."""
    words: WordMode = "whitespace"
    """How words are counted; use "cjk" for Chinese and Japanese."""

    def pinned(self) -> "C4":
        """Return the same settings with the checksum of the file of bad words.

        Raises:
            PrepError: the file cannot be read, or its checksum is not the one in the settings.
        """
        if self.bad_words_file is None:
            return self
        content = _read(self.bad_words_file)
        found = hashlib.sha256(content).hexdigest()
        if self.bad_words_sha256 not in (None, found):
            raise PrepError(
                f"{self.bad_words_file}: not the file of the settings (SHA-256 {found}, "
                f"bad_words_sha256 {self.bad_words_sha256})"
            )
        return self.model_copy(update={"bad_words_sha256": found})

    def rule(self) -> Rule:
        """Return the rule.

        Reasons of removal, after "c4.": lorem_ipsum, curly_bracket, bad_words, sentences.
        Counts, after "c4.": citations, and the lines dropped by terminal_mark, too_few_words,
        javascript and policy.
        """
        self.pinned()
        bad_words = _bad_words(self.bad_words_file) if self.bad_words_file else None
        phrases = tuple(phrase.lower() for phrase in self.policy_phrases)

        def fault(line: str, lowered: str, script: bool, policy: bool) -> str | None:
            if self.terminal_marks is not None and not ends_sentence(line, self.terminal_marks):
                return "terminal_mark"
            if self.min_words is not None and count_words(line, self.words) < self.min_words:
                return "too_few_words"
            if script and "javascript" in lowered:
                return "javascript"
            if policy and any(phrase in lowered for phrase in phrases):
                return "policy"
            return None

        def apply(text: str, changes: Counter[str]) -> str | Removed:
            lowered = text.lower()
            if self.lorem_ipsum and "lorem ipsum" in lowered:
                return Removed("c4.lorem_ipsum", 'has the phrase "lorem ipsum"')
            if self.curly_bracket and "{" in text:
                return Removed("c4.curly_bracket", "has a curly bracket")
            if bad_words and bad_words.search(lowered):
                return Removed("c4.bad_words", f"has a word of {self.bad_words_file}")
            script = self.javascript and "javascript" in lowered
            policy = any(phrase in lowered for phrase in phrases)
            # Lower-casing changes no newline, so both have the same lines.
            lines = text.split("\n")
            lowered_lines = lowered.split("\n") if script or policy else lines
            kept: list[str] = []
            counts = Counter[str]()
            for line, low in zip(lines, lowered_lines, strict=True):
                bare = line.strip()
                if self.citations and "[" in bare:
                    bare, cut = _CITATION.subn("", bare)
                    counts["c4.citations"] += cut
                    bare = bare.strip()
                if not bare:
                    kept.append("")
                elif reason := fault(bare, low, script, policy):
                    counts[f"c4.{reason}"] += 1
                else:
                    kept.append(bare)
            if self.min_sentences is not None:
                found = _count_sentences(kept, self.min_sentences)
                if found < self.min_sentences:
                    figure = f"{found} sentences left, at least {self.min_sentences} needed"
                    return Removed("c4.sentences", figure)
            changes.update(counts)
            return "\n".join(kept).strip("\n") if counts.total() else text

        return apply


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PrepError(
            f"{path}: the file of bad words cannot be read ({error.strerror})"
        ) from None


def _bad_words(path: str) -> re.Pattern[str]:
    """Return a pattern for lower-cased text: bad words as whole words, CJK ones anywhere."""
    try:
        lines = _read(path).decode().lower().splitlines()
    except UnicodeDecodeError:
        raise PrepError(f"{path}: the file of bad words is not UTF-8") from None
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise PrepError(f"{path}: the file of bad words is empty; write one word per line")
    cjk = re.compile(f"[{CJK}]")
    anywhere = [re.escape(word) for word in words if cjk.search(word)]
    whole = [re.escape(word) for word in words if not cjk.search(word)]
    parts = anywhere + ([rf"(?<!\w)(?:{'|'.join(whole)})(?!\w)"] if whole else [])
    return re.compile("|".join(parts))


def _count_sentences(lines: list[str], enough: int) -> int:
    """Return the number of sentences, at least one per line; stop counting at `enough`."""
    found = 0
    for line in lines:
        found += max(sum(1 for _ in _END.finditer(line)), 1) if line else 0
        if found >= enough:
            break
    return found
