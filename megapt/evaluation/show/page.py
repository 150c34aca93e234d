"""The shown window as one HTML page, which fetches nothing and runs no script."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import groupby

from megapt.evaluation.html_page import html_page
from megapt.evaluation.show.describe import Refused, Shown, ShownExample, ShownPiece, ShownTarget
from megapt.evaluation.show.lines import attention, cost, heads, plural, printable, terms

_CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --soft: #63676d;
  --line: #d9dce0; --card: #f6f7f9; --box: #ffffff; --answer: #116329; --first: #9aa4b0;
  --second: #2f6fdb; --source: #e3eefc; --mask: #ffe08a; --sentinel: #ead6fb; --wrong: #ffd3cc;
  --allowed: #5b8bd9; --ahead: #f0ae5c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --paper: #15171a; --soft: #9aa0a8; --line: #3a3e44; --card: #1d2024;
    --box: #25292e; --answer: #7ddb94; --first: #69727d; --second: #6ea3ff; --source: #1f3352;
    --mask: #6d5200; --sentinel: #51306f; --wrong: #74302a; --allowed: #5f8fe0;
    --ahead: #d98f33; } }
* { box-sizing: border-box; }
body { color: var(--ink); background: var(--paper); max-width: 76rem; margin: 0 auto;
  padding: 1.5rem; line-height: 1.5; font-family: system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .2rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h1, h2, h3 { line-height: 1.25; break-after: avoid; }
h3 { font-size: .95rem; margin: 0 0 .6rem; }
h3 small, .soft { color: var(--soft); font-weight: normal; font-size: .875rem; }
p { margin: .2rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .1rem .8rem; }
nav a { color: inherit; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; margin: .8rem 0; break-inside: avoid; }
.passage { line-height: 2.1; overflow-wrap: anywhere; }
.sentence { margin-right: .3rem; }
.sentence::before { content: attr(data-number); color: var(--soft); font-size: .65rem;
  vertical-align: super; margin-right: .2rem; }
.word { display: inline-block; margin: 0 .12rem; border: 1px solid var(--line);
  border-radius: .3rem; background: var(--box); line-height: 1.4; max-width: 100%; }
.word > bdi { padding: 0 .22rem; }
.word > bdi + bdi { border-left: 1px dashed var(--first); }
.space { color: var(--soft); opacity: .6; }
.example { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.tokens { flex: 1 1 24rem; display: flex; flex-wrap: wrap; gap: .5rem .25rem; list-style: none;
  margin: 0; padding: 0; min-width: 0; }
.tokens li { display: flex; flex-direction: column; align-items: center; text-align: center;
  min-width: 1.9rem; max-width: 100%; font-size: .875rem; }
.at { font-size: .65rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.in { align-self: stretch; padding: .1rem .35rem; border: 1px solid var(--line);
  border-bottom: 3px solid var(--first); border-radius: .3rem; background: var(--box);
  overflow-wrap: anywhere; white-space: pre-wrap; min-height: 1.75rem; }
.seg1 { border-bottom-color: var(--second); }
.source { background: var(--source); }
.special { color: var(--soft); font-style: italic; }
.mask { background: var(--mask); font-weight: 600; }
.sentinel { background: var(--sentinel); font-weight: 600; }
.replaced { background: var(--wrong); text-decoration: line-through; }
.kept { outline: 2px solid var(--mask); outline-offset: -1px; }
.out { color: var(--answer); overflow-wrap: anywhere; white-space: pre-wrap; }
.out::before { content: "\\2193"; display: block; font-size: .65rem; line-height: 1;
  color: var(--soft); }
.out small { display: block; color: var(--soft); font-size: .65rem; }
figure { margin: 0; width: 7rem; flex: none; }
figure svg { display: block; width: 100%; height: auto; background: var(--box);
  border: 1px solid var(--line); }
figcaption { color: var(--soft); font-size: .7rem; line-height: 1.35; margin-top: .3rem; }
.allowed { fill: var(--allowed); }
.ahead { fill: var(--ahead); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .8rem; list-style: none;
  color: var(--soft); padding: 0; margin: .8rem 0; align-items: center; }
.legend .in { display: inline-block; min-height: 0; color: var(--ink); }
.legend .special { color: var(--soft); }
.legend .out { display: inline; }
.legend .out::before { display: inline; content: "\\2193\\00a0"; }
.swatch { display: inline-block; width: .8rem; height: .8rem; vertical-align: -.08rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } }
"""
_CELLS = 64
"""Largest number of rows in a picture of attention; longer examples are sampled at this number."""

_LEGEND = """<ul class="legend">
<li><span class="in special">[CLS]</span> special token</li>
<li><span class="in mask">[MASK]</span> mask</li>
<li><span class="in sentinel">&lt;extra_id_0&gt;</span> sentinel</li>
<li><span class="in replaced">word</span> random replacement</li>
<li><span class="in kept">word</span> unchanged, but predicted</li>
<li><span class="in source">word</span> source, seen by all positions</li>
<li><span class="in seg1">word</span> segment 1</li>
<li><span class="out">word</span> target</li>
<li><svg class="swatch" viewBox="0 0 1 1" aria-hidden="true"><path class="allowed"
 d="M0 0h1v1h-1z"/></svg> attention (row: query, column: key) to keys up to the query</li>
<li><svg class="swatch" viewBox="0 0 1 1" aria-hidden="true"><path class="ahead"
 d="M0 0h1v1h-1z"/></svg> attention to keys after the query</li>
</ul>
"""


def _text(value: object) -> str:
    # Nothing in a text may be fetched or executed.
    return html.escape(printable(str(value)))


_SIGNS = {"\n": "↵", "\r": "↵", "\t": "⇥"}


def _token(piece: str) -> str:
    """Return the name of a piece, with pale spaces and signs for line breaks and tabs."""
    named = _text("".join(_SIGNS.get(letter, letter) for letter in piece))
    return re.sub("(▁+)", r'<span class="space">\1</span>', named) or "&nbsp;"


def _language(text: str) -> str:
    """Return the attribute that makes a browser draw Han characters in their Chinese form."""
    return ' lang="zh"' if re.search("[\u3400-\u9fff]", text) else ""


def _piece(piece: ShownPiece) -> str:
    words, sentences = {*piece["word_starts"]}, {*piece["sentence_starts"]}
    parts: list[str] = []
    number = 0
    for place, token in enumerate(piece["pieces"]):
        if place in sentences:
            number += 1
            end = "</span></span>" if place else ""
            parts.append(f'{end}<span class="sentence" data-number="{number}"><span class="word">')
        elif place in words:
            parts.append('</span><span class="word">')
        parts.append(f"<bdi>{_token(token)}</bdi>")
    sizes = ", ".join(
        (
            plural(piece["tokens"], "token"),
            plural(piece["words"], "word"),
            plural(piece["sentences"], "sentence"),
        )
    )
    label = f", label <bdi>{_text(piece['label'])}</bdi>" if piece["label"] is not None else ""
    return (
        f'<div class="card"><h3>document {piece["document"]} '
        f"<small>{piece['part']}: {sizes}{label}</small></h3>\n"
        f'<p class="passage"{_language(piece["text"])}>{"".join(parts)}</span></span></p>\n'
        f'<p class="soft"{_language(piece["text"])}><bdi>{_text(piece["text"])}</bdi></p></div>\n'
    )


def _picture(example: ShownExample) -> str:
    """Return a square picture of the mask: rows are queries, columns are keys."""
    n = len(example["input"])
    cells = min(n, _CELLS)
    seen = [example["visible"][cell * n // cells] for cell in range(cells)]
    allowed, ahead = [], []
    for query in range(cells):
        allowed.append(f"M0 {query}h{query + 1}v1h-{query + 1}z")
        keys = (key for key in range(query + 1, cells) if seen[key])
        for _, run in groupby(enumerate(keys), key=lambda item: item[1] - item[0]):
            first, *others = (key for _, key in run)
            width = 1 + len(others)
            ahead.append(f"M{first} {query}h{width}v1h-{width}z")
    words = attention(example)
    sketch = f"; drawn at {cells} of {n} positions" if cells < n else ""
    return (
        f'<figure><svg viewBox="0 0 {cells} {cells}" role="img" shape-rendering="crispEdges" '
        f'aria-label="{_text(words)}">'
        f'<path class="allowed" d="{"".join(allowed)}"/>'
        f'<path class="ahead" d="{"".join(ahead)}"/></svg>\n'
        f"<figcaption>{_text(words)}{sketch}</figcaption></figure>\n"
    )


def _answer(target: ShownTarget, named: bool, weighted: bool) -> str:
    name = f"<small>{_text(target['head'])}</small>" if named else ""
    weight = f"<small>w {target['weight']:.3g}</small>" if weighted else ""
    return f'<span class="out">{_token(target["target"])}{name}{weight}</span>'


def _example(example: ShownExample, number: int) -> str:
    asked: dict[int, list[ShownTarget]] = {}
    for target in example["targets"]:
        asked.setdefault(target["position"], []).append(target)
    by_head = heads(example)
    first = next(iter(by_head), "")
    # A weight that all targets of a head share is in the title.
    varied = {head for head, targets in by_head.items() if len({t["weight"] for t in targets}) > 1}
    prefix = not all(example["visible"])
    boxes = []
    for place, (token, role, seen, segment, position) in enumerate(
        zip(
            example["input"],
            example["roles"],
            example["visible"],
            example["segments"],
            example["positions"],
            strict=True,
        )
    ):
        kinds = f"in {role}{' seg1' if segment else ''}{' source' if seen and prefix else ''}"
        answers = "".join(
            _answer(t, t["head"] != first, t["head"] in varied) for t in asked.get(place, ())
        )
        boxes.append(
            f'<li><span class="at">{position}</span>'
            f'<span class="{kinds}">{_token(token)}</span>{answers}</li>'
        )
    summary = []
    for head, targets in by_head.items():
        extra = terms(example, head, targets)
        count = plural(len(targets), "target")
        summary.append(f"{_text(head)}: {count}" + (f" ({_text(extra)})" if extra else ""))
    size = plural(len(example["input"]), "position")
    title = ", ".join([f"document {example['document']}", size, *summary])
    language = _language("".join(example["input"]))
    return (
        f'<div class="card"><h3>example {number} <small>{title}</small></h3>\n'
        f'<div class="example"><ol class="tokens"{language}>{"".join(boxes)}</ol>\n'
        f"{_picture(example)}</div></div>\n"
    )


def _objective(shown: Shown | Refused) -> str:
    name = _text(shown["objective"])
    head = f'<section>\n<h2 id="{name}">{name}</h2>\n'
    if "refused" in shown:
        return f'{head}<p class="soft">refused: {_text(shown["refused"])}</p>\n</section>\n'
    count = plural(len(shown["examples"]), "example")
    taken = plural(sum(len(example["input"]) for example in shown["examples"]), "position")
    examples = "".join(_example(example, i) for i, example in enumerate(shown["examples"]))
    return (
        f'{head}<p>{count}, {taken}</p>\n<p class="soft">On average, {_text(cost(shown))}</p>\n'
        f"{examples}</section>\n"
    )


def render(results: Sequence[Shown | Refused], source: str) -> str:
    """Return the page: the window's text, then the examples of each objective.

    Args:
        results: one result per objective, all of the same window; at least one is not refused.
        source: name of the configuration.
    """
    windows = [shown for shown in results if "window" in shown]
    window = windows[0]
    title = f"window {window['window']} of {source}"
    tokens, pieces = window["raw_tokens"], window["pieces"]
    text = (
        f"<p>{plural(tokens, 'raw token')} in {plural(len(pieces), 'piece')}. "
        f"A box is a word; dashed lines separate its tokens. Sentences are numbered.</p>\n"
        f"{''.join(map(_piece, pieces))}"
    )
    names = [_text(shown["objective"]) for shown in results]
    links = "".join(f'<a href="#{name}">{name}</a>' for name in names) if len(names) > 1 else ""
    nav = f'<nav aria-label="Objectives">{links}</nav>\n' if links else ""
    main = (
        f"<h1>{_text(title)}</h1>\n"
        f'{nav}<section aria-label="Text">\n{text}</section>\n'
        f"{_LEGEND}{''.join(map(_objective, results))}"
    )
    return html_page(f"{_text(title)}: {', '.join(names)}", _CSS, main)
