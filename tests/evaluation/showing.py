"""Windows as `megapt show` describes them, written by hand, and what is read of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from megapt.data import HeadSpec
from megapt.evaluation.show.describe import (
    Refused,
    Shown,
    ShownExample,
    ShownPiece,
    ShownTarget,
)
from megapt.evaluation.show.lines import lines


def piece(text: str, names: list[str], words: list[int], sentences: list[int]) -> ShownPiece:
    return {
        "document": 7,
        "part": "whole",
        "label": "sea",
        "tokens": len(names),
        "words": len(words),
        "sentences": len(sentences),
        "text": text,
        "pieces": names,
        "word_starts": words,
        "sentence_starts": sentences,
    }


def target(
    head: str, place: int, read: str, right: str, weight: float | None = None
) -> ShownTarget:
    return {"head": head, "position": place, "input": read, "target": right, "weight": weight}


def example(names: list[str], targets: list[ShownTarget], **changes: Any) -> ShownExample:
    """Bidirectional and in one segment, unless something else is said."""
    n = len(names)
    usual: dict[str, Any] = {
        "document": 7,
        "input": names,
        "roles": ["mask" if name == "[MASK]" else "text" for name in names],
        "targets": targets,
        "sizes": {},
        "segments": [0] * n,
        "positions": list(range(n)),
        "visible": [True] * n,
        "pairs": n * n,
    }
    return {**usual, **changes}  # type: ignore[typeddict-item]


def shown(*examples: ShownExample, pieces: list[ShownPiece] | None = None, **heads: str) -> Shown:
    names = ["▁A", "▁boat", "."]
    return {
        "window": 3,
        "raw_tokens": 3,
        "pieces": pieces or [piece("A boat.", names, [0, 1, 2], [0])],
        "objective": "some",
        "heads": [
            {
                "name": name,
                "kind": kind,
                "answers": "pieces" if HeadSpec(name, kind).over_vocabulary else "classes",
                "weight": 1.0,
            }
            for name, kind in heads.items()
        ],
        "cost": {"tokens": 3, "positions": 5.0, "targets": 7.24},
        "examples": list(examples),
    }


MASKED = example(
    ["[CLS]", "▁A", "[MASK]", "[SEP]"],
    [target("tokens", 2, "[MASK]", "▁boat"), target("class", 0, "[CLS]", "sea")],
    roles=["special", "text", "mask", "special"],
)
SOME = shown(MASKED, tokens="token", **{"class": "sequence"})
PLAIN = """\
window 3: 3 raw tokens
  document 7 (whole): 3 tokens, 3 words, 1 sentence, label sea
    A boat.
objective some: 1 example, 4 positions
  a document of W = 3 tokens: 5 positions, 7.2 targets
example 0 (document 7), 4 positions
  input      [CLS] ▁A [MASK] [SEP]
  tokens     2:[MASK]→▁boat
  class      0:[CLS]→sea
  segments   0 x4
  positions  0-3
  attention  bidirectional; 16 of 16 pairs
"""


def text(results: list[Shown | Refused]) -> str:
    return "".join(f"{line.plain}\n" for line in lines(results))


def one_line(head: str, made: ShownExample, kind: str = "token") -> str:
    """What stands on the line of a head."""
    printed = text([shown(made, **{head: kind})])
    return next(line for line in printed.splitlines() if line.startswith(f"  {head} ")).split(
        maxsplit=1
    )[1]


EVIL = "a\x1b[31m\x07\x00\x9b\u202eb\u2066\n"
EVIL_SHOWN = r"a\x1b[31m\x07\x00\x9b\u202eb\u2066\n"


class Page(HTMLParser):
    """Reads a page: every element is closed where it should be, and texts and links are kept."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)
