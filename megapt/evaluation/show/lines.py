"""The shown window as lines of text.

In a file or a pipe, the lines are plain and are not folded. On a terminal they are colored and
folded, with continuation lines indented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.text import Text

from megapt.evaluation.show.describe import (
    Refused,
    Shown,
    ShownExample,
    ShownTarget,
)

Part = tuple[str, str]
"""A text and its Rich style."""

_STYLES = {
    "special": "dim",
    "mask": "bold yellow",
    "sentinel": "bold magenta",
    "replaced": "bold red",
    "kept": "underline yellow",
}
_TITLE, _SOFT, _ANSWER, _PREFIX, _SECOND = "bold", "dim", "green", "cyan", "blue"

_NAMES = 10
"""Smallest width of the column of names in an example."""

_LONG_RUN = 8
"""Number of neighboring targets from which they are printed without their input tokens."""


@dataclass(frozen=True)
class Line:
    """One line."""

    parts: Sequence[Part]
    indent: int = 2
    """Columns of indentation of continuation lines."""

    @property
    def plain(self) -> str:
        """Text of the line without colors."""
        return "".join(text for text, _ in self.parts)


# Control characters, line separators, and marks that change the direction of text.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped as in a Python string: `\x1b`.

    Otherwise the text of a corpus could move the cursor, color a terminal or reverse a line.
    """
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def plural(count: float, thing: str) -> str:
    """Return a count to at most one decimal place with its noun: `1 target`, `7.2 targets`."""
    number = f"{count:.1f}".removesuffix(".0")
    return f"{number} {thing}" if number == "1" else f"{number} {thing}s"


def runs(values: Sequence[int]) -> str:
    """Return runs of equal or consecutive values in short form: `0-4`, `0 x5`, `7`."""
    parts: list[str] = []
    start = 0
    while start < len(values):
        stop = start + 1
        while stop < len(values) and values[stop] == values[start] + stop - start:
            stop += 1
        if stop - start > 1:
            parts.append(f"{values[start]}-{values[stop - 1]}")
        else:
            while stop < len(values) and values[stop] == values[start]:
                stop += 1
            parts.append(f"{values[start]}" + (f" x{stop - start}" if stop - start > 1 else ""))
        start = stop
    return " ".join(parts)


def counted(words: Sequence[str]) -> list[str]:
    """Return runs of equal words in short form: `a x5`, `b`."""
    found = [(word, len(list(group))) for word, group in groupby(words)]
    return [word if count == 1 else f"{word} x{count}" for word, count in found]


def attention(example: ShownExample) -> str:
    """Return what attention allows, in words."""
    n, seen = len(example["input"]), sum(example["visible"])
    kind = {0: "causal", n: "bidirectional"}.get(
        seen, f"prefix: {plural(seen, 'position')} seen by all"
    )
    return f"{kind}; {example['pairs']} of {n * n} pairs"


def heads(example: ShownExample) -> dict[str, list[ShownTarget]]:
    """Return the targets of each head that has any."""
    found: dict[str, list[ShownTarget]] = {}
    for target in example["targets"]:
        found.setdefault(target["head"], []).append(target)
    return found


def cost(shown: Shown) -> str:
    """Return the cost of a document of the size of a window, in words."""
    tokens, positions, targets = (shown["cost"][key] for key in ("tokens", "positions", "targets"))
    return (
        f"a document of W = {plural(tokens, 'token')}: {plural(positions, 'position')}, "
        f"{plural(targets, 'target')}"
    )


def terms(example: ShownExample, head: str, targets: Sequence[ShownTarget]) -> str:
    """Return the weights and the size of a head's loss if it is not a plain mean: `w 2, size 16`.

    Equal weights are written once, different weights one by one, in runs.
    """
    weights = [f"{t['weight']:.3g}" for t in targets if t["weight"] is not None]
    listed = weights[:1] if len({*weights}) == 1 else counted(weights)
    found = [f"w {' '.join(listed)}"] if listed else []
    if head in example["sizes"]:
        found.append(f"size {example['sizes'][head]:g}")
    return ", ".join(found)


def _styles(example: ShownExample) -> list[str]:
    """Return the style of each position of the input."""
    prefix = any(example["visible"]) and not all(example["visible"])
    styles = []
    for role, seen, segment in zip(
        example["roles"], example["visible"], example["segments"], strict=True
    ):
        place = (_PREFIX if seen else "") if prefix else (_SECOND if segment else "")
        styles.append(_STYLES.get(role, place))
    return styles


def _spaced(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with a space between each two."""
    return [item for part in parts for item in ((" ", ""), part)][1:]


def _stretches(targets: Sequence[ShownTarget]) -> list[list[ShownTarget]]:
    """Return the targets in runs of neighboring positions."""
    found: list[list[ShownTarget]] = []
    for target in targets:
        if found and target["position"] == found[-1][-1]["position"] + 1:
            found[-1].append(target)
        else:
            found.append([target])
    return found


def _arrows(targets: Sequence[ShownTarget], styles: Sequence[str], classes: bool) -> list[Part]:
    """Return `position:input→target` for each target, and long runs as `first-last→targets`.

    In long runs, equal classes are counted: `original x5`.
    """
    parts: list[Part] = []
    for stretch in _stretches(targets):
        first, last = stretch[0]["position"], stretch[-1]["position"]
        if len(stretch) < _LONG_RUN:
            for target in stretch:
                place = target["position"]
                parts += [(" ", ""), (f"{place}:", _SOFT), (target["input"], styles[place])]
                parts += [("→", _SOFT), (target["target"], _ANSWER)]
            continue
        answers = [target["target"] for target in stretch]
        answers = counted(answers) if classes else answers
        parts += [(" ", ""), (f"{first}-{last}→", _SOFT)]
        parts += _spaced([(answer, _ANSWER) for answer in answers])
    return parts[1:]


def _example(example: ShownExample, number: int, answers: Mapping[str, str]) -> Iterator[Line]:
    styles = _styles(example)
    width = max([_NAMES, *map(len, answers)])

    def named(name: str, *parts: Part) -> Line:
        lead = f"  {name:{width}} "
        return Line([(lead, _SOFT), *parts], len(lead))

    title = f"example {number} (document {example['document']})"
    yield Line([(title, _TITLE), (f", {plural(len(example['input']), 'position')}", "")])
    yield named("input", *_spaced(list(zip(example["input"], styles, strict=True))))
    for head, targets in heads(example).items():
        extra = terms(example, head, targets)
        arrows = _arrows(targets, styles, answers[head] == "classes")
        yield named(head, *arrows, (f" ({extra})" if extra else "", _SOFT))
    yield named("segments", (runs(example["segments"]), ""))
    yield named("positions", (runs(example["positions"]), ""))
    yield named("attention", (attention(example), ""))


def _window(shown: Shown) -> Iterator[Line]:
    tokens = plural(shown["raw_tokens"], "raw token")
    yield Line([(f"window {shown['window']}", _TITLE), (f": {tokens}", "")])
    for piece in shown["pieces"]:
        sizes = (
            f"{plural(piece['tokens'], 'token')}, {plural(piece['words'], 'word')}, "
            f"{plural(piece['sentences'], 'sentence')}"
        )
        label = f", label {piece['label']}" if piece["label"] is not None else ""
        yield Line(
            [(f"  document {piece['document']} ({piece['part']}): {sizes}{label}", _SOFT)], 4
        )
        yield Line([(f"    {piece['text']}", "")], 4)


def _objective(shown: Shown) -> Iterator[Line]:
    count = plural(len(shown["examples"]), "example")
    taken = plural(sum(len(example["input"]) for example in shown["examples"]), "position")
    yield Line([(f"objective {shown['objective']}", _TITLE), (f": {count}, {taken}", "")])
    yield Line([(f"  {cost(shown)}", "")], 4)
    answers = {head["name"]: head["answers"] for head in shown["heads"]}
    for number, example in enumerate(shown["examples"]):
        yield from _example(example, number, answers)


def _lines(results: Sequence[Shown | Refused]) -> Iterator[Line]:
    windows = [shown for shown in results if "window" in shown]
    yield from _window(windows[0])
    for result in results:
        if "refused" in result:
            title = f"objective {result['objective']}"
            yield Line([(title, _TITLE), (f": refused: {result['refused']}", "")])
        else:
            yield from _objective(result)


def lines(results: Sequence[Shown | Refused]) -> Iterator[Line]:
    """Yield the lines: the window, then the examples of each objective.

    Args:
        results: one result per objective, all of the same window; at least one is not refused.
    """
    for line in _lines(results):
        yield Line([(printable(text), style) for text, style in line.parts], line.indent)


def write(results: Sequence[Shown | Refused], console: Console) -> None:
    """Write the lines to a console: colored and folded on a terminal, otherwise plain.

    With NO_COLOR, they are folded on a terminal but not colored.
    """
    for line in lines(results):
        if not console.is_terminal:
            console.file.write(f"{line.plain}\n")
            continue
        text = Text(line.plain) if console.no_color else Text.assemble(*line.parts)
        lead, rest = text[: line.indent], text[line.indent :]
        folded = rest.wrap(console, max(console.width - line.indent, 20), overflow="fold")
        for number, part in enumerate(folded):
            part.rstrip()
            console.print((Text(" " * line.indent) if number else lead) + part, soft_wrap=True)
