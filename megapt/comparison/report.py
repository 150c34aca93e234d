"""The results of a comparison as an HTML page and as a table for the terminal."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from megapt.comparison.figures import (
    AXES,
    amount,
    budgets,
    learning_curves,
    measured,
)
from megapt.comparison.results import MeasureRecord, Member, Results
from megapt.comparison.summary import NONE, in_unit, percent, ranked, score_text, summarize
from megapt.evaluation.html_page import html_page

_CSS = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #5a5a5a;
  --line: #cfcfcf; --block: #f4f4f4; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --paper: #16181b; --soft: #a9a9a9; --line: #44474c; --block: #202327; } }
body { color: var(--ink); background: var(--paper); max-width: 62rem; margin: 0 auto;
  padding: 1.5rem; line-height: 1.5; font-family: system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1, h2, h3 { line-height: 1.2; break-after: avoid; }
h2 { margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: 0.4rem; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; }
.text { text-align: left; }
.wide + .wide { margin-top: 1.5rem; }
th { vertical-align: bottom; }
figure { margin: 1.5rem 0; max-width: 720px; break-inside: avoid; }
figure svg { width: 100%; height: auto; }
figcaption, .kind, dt { color: var(--soft); font-size: 0.875rem; }
.kind { margin: 0 0 0.5rem; }
.sample { background: var(--block); margin: 0.8rem 0; padding: 0.6rem 1rem; break-inside: avoid; }
dd { margin: 0 0 0.5rem; overflow-wrap: anywhere; }
.sample dd { white-space: pre-wrap; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .wide { overflow: visible; }
  table { font-size: 8pt; } th, td { padding: 0.2rem 0.3rem; } }
"""
_LOSSES = ("Validation loss", "Unigram loss", "Ratio")


def _losses(member: Member) -> list[str]:
    """Return the cells under `_LOSSES`."""
    return [
        f"{member.validation_loss:.3f}",
        f"{member.unigram_loss:.3f}",
        f"{member.loss_ratio:.3f}",
    ]


def _speed(member: Member) -> str:
    return f"{member.tokens_per_second:,.0f}"


def _title(results: Results, measure: MeasureRecord) -> str:
    """Return the column title of a measure."""
    return f"{measure.title} (95 %)" if ranked(results.members, measure) else measure.title


def _score(member: Member, measure: MeasureRecord) -> str:
    return score_text(member.scores.get(measure.name), measure.unit)


def table(results: Results) -> Table:
    """Return the summary for the terminal."""
    summary = Table(title=escape(results.title))
    measures = [_title(results, measure) for measure in results.measures]
    for i, title in enumerate(["Member", *_LOSSES, *measures, "Tokens/s"]):
        summary.add_column(title, justify="left" if i == 0 else "right", overflow="fold")
    for member in results.members:
        scores = [_score(member, measure) for measure in results.measures]
        row = [member.name, *_losses(member), *scores, _speed(member)]
        summary.add_row(*map(escape, row))
    return summary


def _text(value: Any) -> str:
    # A model can write anything into a sample; nothing of it may be fetched or executed.
    return html.escape(str(value))


def _html_table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1
) -> str:
    """Return a table whose first column names the row; the first `texts` columns hold words."""
    kinds = [' class="text"' if i < texts else "" for i in range(len(header))]
    head = "".join(
        f'<th scope="col"{kind}>{_text(title)}</th>'
        for kind, title in zip(kinds, header, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row" class="text">{_text(row[0])}</th>'
        + "".join(
            f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True)
        )
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{_text(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def _pairs(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>\n" for key, value in values.items()
    )
    return f"<dl>\n{items}</dl>\n"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>\n"


def _list(items: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{_text(item)}</li>\n" for item in items) + "</ul>\n"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items()) or "defaults"


def _scores(results: Results) -> str:
    header = ["Member", "Objective", "Attention", *_LOSSES]
    rows = [[m.name, m.objective, m.attention, *_losses(m)] for m in results.members]
    for measure in results.measures:
        header += [_title(results, measure), *(name.capitalize() for name in measure.baselines)]
        baselines = [in_unit(value, measure.unit) for value in measure.baselines.values()]
        for row, member in zip(rows, results.members, strict=True):
            row += [_score(member, measure), *baselines]
    for row, member in zip(rows, results.members, strict=True):
        row.append(_speed(member))
    captions = [
        "Losses are in nats per target on validation text, weighted over the heads. Unigram loss: "
        "the loss of predicting the label frequencies everywhere. Ratio: validation loss divided "
        "by unigram loss.",
        *(f"{measure.title}: {measure.about}." for measure in results.measures),
        "Tokens/s: raw tokens per second in training.",
    ]
    return _html_table(" ".join(captions), [*header, "Tokens/s"], rows, texts=3)


def _unanswered(results: Results) -> str:
    """Return the list of missing scores, with reasons."""
    reasons = [f"{name}: {why}" for name, why in results.skipped_measures.items()]
    reasons += [
        f"{name} of {member.name}: {why}"
        for member in results.members
        for name, why in member.unanswered.items()
    ]
    return f"<p>Not measured:</p>\n{_list(reasons)}" if reasons else ""


def _heads(results: Results) -> str:
    header = ("Member", "Head", "Weight", "Loss", "Unigram loss", "Accuracy", "Unigram accuracy")
    rows = [
        [
            member.name,
            f"{head.head} ({head.kind})",
            f"{head.weight:g}",
            f"{head.loss:.3f}",
            f"{head.unigram_loss:.3f}",
            percent(head.accuracy),
            percent(head.unigram_accuracy),
            f"{head.targets:,}",
        ]
        for member in results.members
        for head in member.heads
    ]
    return _html_table("Every loss head on the validation text", [*header, "Targets"], rows, 2)


def _budget(results: Results) -> str:
    rows = [
        [
            member.name,
            *(amount(axis, getattr(member.budget, axis)) for axis in AXES),
            f"{member.steps:,}",
            f"{member.parameters:,}",
        ]
        for member in results.members
    ]
    limit = amount(results.budget_axis, results.budget_amount)
    caption = f"Spent in training. Declared budget: {AXES[results.budget_axis]}, {limit}."
    return _html_table(caption, ["Member", *AXES.values(), "Steps", "Parameters"], rows)


def _figures(results: Results) -> str:
    parts = []
    if any(member.curve for member in results.members):
        caption = (
            "Validation loss during training, divided by the member's unigram loss, because losses "
            "of different objectives are not comparable. Below the dashed line, a member predicts "
            "better than unigram frequencies. Validation during training may use fewer windows "
            "than the final loss in the table."
        )
        parts.append(_figure(learning_curves(results), caption))
    for measure in results.measures:
        if ranked(results.members, measure):
            caption = f"{measure.title}: {measure.about}. Items: {measure.material}."
            if all(measure.name in member.scores for member in results.members):
                caption += " All members have a score on this measure."
            if measure.untrained is not None and measure.untrained.interval is not None:
                caption += " The gray band is the interval of the untrained trunk."
            parts.append(_figure(measured(results, measure), caption))
    caption = "What each member spent. Bars are relative to the largest value on that axis."
    return "".join([*parts, _figure(budgets(results), caption)])


def _samples(results: Results) -> str:
    if not any(member.samples for member in results.members):
        return "<p>No text was generated.</p>\n"
    parts = []
    for member in results.members:
        parts.append(f"<h3>{_text(member.name)}</h3>\n")
        if not member.samples:
            parts.append(f"<p>{_text(member.objective)} does not generate text.</p>\n")
        for sample in member.samples:
            kind = f"{sample.kind}, repetition {percent(sample.repetition)}"
            pairs = _pairs({"Prompt": sample.prompt, "Text": sample.text})
            parts.append(f'<div class="sample"><p class="kind">{_text(kind)}</p>\n{pairs}</div>\n')
    return "".join(parts)


def _setup(results: Results) -> str:
    corpus = results.corpus
    values = {
        "Corpus": corpus.name or NONE,
        "Corpus fingerprint": corpus.fingerprint,
        "Training text": f"{corpus.train_documents:,} documents, {corpus.train_tokens:,} tokens",
        "Validation text": f"{corpus.valid_documents:,} documents, {corpus.valid_tokens:,} tokens",
        "Labels": ", ".join(corpus.labels) or "none",
        "Windows": f"{results.window:,} positions, policy {results.window_policy}",
        "Model": _settings(results.model),
        "Seed": results.seed,
        "Ranks": f"{results.ranks} on {results.device}",
        "megapt": results.megapt_version,
    }
    for measure in results.measures:
        references = [f"{name} {in_unit(v, measure.unit)}" for name, v in measure.baselines.items()]
        if measure.untrained is not None:
            references.append(f"untrained trunk {score_text(measure.untrained, measure.unit)}")
        details = [measure.material, ", ".join(references), _settings(measure.settings)]
        values[measure.title] = "; ".join(filter(None, details))
    for member in results.members:
        values[member.name] = (
            f"{member.objective}: {_settings(member.settings)}; run folder {member.run}"
        )
    return _pairs(values)


def render(results: Results) -> str:
    """Return the report: one HTML page that fetches nothing and runs no script."""
    sections = {
        "Scores": _scores(results) + _unanswered(results) + _heads(results),
        "Budget": _budget(results),
        "Figures": _figures(results),
        "What was held equal": _list(results.held_equal),
        "What was not held equal": _list(results.not_equal),
        "Generated samples": _samples(results),
        "Settings": _setup(results),
    }
    body = "".join(
        f"<section>\n<h2>{title}</h2>\n{content}</section>\n" for title, content in sections.items()
    )
    # Keep the percent sign on the line of its number.
    summary = _text(summarize(results)).replace(" %", "&nbsp;%")
    title = _text(results.title)
    return html_page(title, _CSS, f"<h1>{title}</h1>\n<p>{summary}</p>\n{body}")
