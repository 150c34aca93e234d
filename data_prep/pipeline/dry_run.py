"""Tries the cleaning steps of a config on a sample of the input."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_prep.cleaning import Cleaned, Cleaner, Removed
from data_prep.errors import PrepError
from data_prep.inputs import Document, Tally, Unit, find_files, plan_units, read_documents
from data_prep.settings import BuildSettings

_MAX_UNITS = 16
_CANDIDATES = 20
EXAMPLES = 3
_EXCERPT = 100
_SIGNS = {"\n": "⏎", "\t": "⇥"}


@dataclass(frozen=True)
class Example:
    """A document that a step changed or removed."""

    place: str
    """Its place in the input."""
    figure: str
    """Why it was removed; "" if it was changed."""
    before: str
    """An excerpt of the step's input."""
    after: str
    """An excerpt of the step's output; "" if the document was removed."""


@dataclass
class StepTrial:
    """What one step did to the sample."""

    step: str
    """Name of the step."""
    changed: int = 0
    """Number of documents that the step changed."""
    removed: dict[str, int] = field(default_factory=dict)
    """Number of documents that the step removed, by reason."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Examples by reason of removal, and changed documents under "changed"."""

    def add_example(self, reason: str, example: Example) -> None:
        """Keep the first `EXAMPLES` examples of a reason."""
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(example)


@dataclass
class Trial:
    """What cleaning did to a sample.

    Each step gets every document as the earlier steps changed it, including documents that they
    would have removed. The figures of a step therefore show its own effect.
    """

    documents: int
    """Number of documents in the sample."""
    kept: int
    """Number of documents that pass all steps."""
    characters: int
    """Characters of the sample."""
    kept_characters: int
    """Characters that are left after all steps."""
    rejected: dict[str, int]
    """Number of faulty records in the units that were sampled, by reason."""
    steps: list[StepTrial]
    """The results of the steps, in order."""

    def as_json(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return asdict(self)


def try_cleaning(settings: BuildSettings, documents: int) -> Trial:
    """Run the cleaning steps on a sample.

    The sample comes from up to `_MAX_UNITS` units of the input, spread evenly. A hash of document
    number and seed draws documents among the first `_CANDIDATES` times as many of each
    unit. The cost of a sample therefore does not depend on the size of the corpus.

    Raises:
        PrepError: no step is named, or the input is faulty.
    """
    if not settings.cleaning:
        raise PrepError("--dry-run: the settings name no cleaning step, so nothing would change")
    cleaner = Cleaner(settings.cleaning)
    trials = [StepTrial(step.name) for step in settings.cleaning]
    tally = Tally()
    trial = Trial(0, 0, 0, 0, tally.rejected, trials)
    for document in _sample(settings, documents, tally):
        trial.documents += 1
        trial.characters += len(document.text)
        for one, traced in zip(trials, cleaner.trace(document.text), strict=True):
            if isinstance(traced.after, Removed):
                reason = traced.after.reason
                one.removed[reason] = one.removed.get(reason, 0) + 1
                excerpt = _excerpt(traced.before, 0)
                example = Example(str(document.place), traced.after.figure, excerpt, "")
                one.add_example(reason, example)
            elif traced.after.strip() == "":
                one.removed["empty"] = one.removed.get("empty", 0) + 1
                example = Example(
                    str(document.place), "nothing is left", _excerpt(traced.before, 0), ""
                )
                one.add_example("empty", example)
                break
            elif traced.after != traced.before:
                one.changed += 1
                start = _difference(traced.before, traced.after) - _EXCERPT // 4
                before, after = (_excerpt(text, start) for text in (traced.before, traced.after))
                one.add_example("changed", Example(str(document.place), "", before, after))
        cleaned = cleaner.clean(document.text)
        if isinstance(cleaned, Cleaned):
            trial.kept += 1
            trial.kept_characters += len(cleaned.text)
    if not trial.documents:
        raise PrepError("the input holds no document with text")
    return trial


def print_trial(trial: Trial, console: Console) -> None:
    """Print a trial: one table of the steps, then the examples."""
    table = Table("step", "changed", "would remove", "reasons")
    for one in trial.steps:
        reasons = ", ".join(
            f"{reason} {count}" for reason, count in Counter(one.removed).most_common()
        )
        counts = (
            f"{count} ({count / trial.documents:.1%})"
            for count in (one.changed, sum(one.removed.values()))
        )
        table.add_row(one.step, *counts, reasons)
    console.print(table)
    console.print(
        f"{trial.documents:,} documents sampled; all steps together keep {trial.kept:,} "
        f"({trial.kept / trial.documents:.1%}) and {trial.kept_characters / trial.characters:.1%} "
        "of the characters. A dry run does not search for duplicates.",
        highlight=False,
    )
    for reason, count in trial.rejected.items():
        console.print(f"faulty: {count:,} ({reason})", highlight=False)
    for one in trial.steps:
        for reason, examples in one.examples.items():
            name = reason if reason.startswith(one.step) else f"{one.step}: {reason}"
            console.print(f"\n[bold]{escape(name)}[/bold]", highlight=False)
            for example in examples:
                figure = f"  {example.figure}" if example.figure else ""
                lines = [f"  {example.place}{figure}", f"    - {example.before}"]
                lines += [f"    + {example.after}"] if example.after else []
                console.print(escape("\n".join(lines)), highlight=False, soft_wrap=True)


def _sample(settings: BuildSettings, documents: int, tally: Tally) -> Iterator[Document]:
    corpora = list(settings.corpora.values())
    units = plan_units(find_files(settings.corpora), errors=settings.errors)
    places = min(_MAX_UNITS, len(units), documents)
    for place in range(places):
        wanted = documents * (place + 1) // places - documents * place // places
        unit = units[len(units) * place // places]
        found = islice(read_documents(unit, corpora, settings.errors, tally), wanted * _CANDIDATES)
        drawn = heapq.nsmallest(wanted, found, key=lambda pair: _rank(settings.seed, unit, pair[0]))
        yield from (document for _, document in sorted(drawn, key=lambda pair: pair[0]))


def _rank(seed: int, unit: Unit, number: int) -> bytes:
    key = seed.to_bytes(8, "little")
    return hashlib.blake2b(b"%d %d" % (unit.number, number), digest_size=8, key=key).digest()


def _difference(before: str, after: str) -> int:
    """Return the index of the first character that differs."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (old, new) in pairs if old != new), min(len(before), len(after)))


def _excerpt(text: str, start: int) -> str:
    """Return a part of a text in one line, with "…" where text is omitted."""
    start = max(start, 0)
    part = text[start : start + _EXCERPT]
    shown = "".join(
        _SIGNS.get(char) or (char if char.isprintable() else _code(char)) for char in part
    )
    return ("…" if start else "") + shown + ("…" if start + _EXCERPT < len(text) else "")


def _code(character: str) -> str:
    return f"<U+{ord(character):04X}>"
