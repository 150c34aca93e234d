"""Prints the results of the commands as text."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_BAR_CHARACTERS = 40
_COUNTS = ("documents", "tokens", "words", "sentences", "text_bytes", "characters")
_RATIOS = ("bytes_per_token", "characters_per_token", "tokens_per_word", "words_per_sentence")


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print the result of `corpus_summary`: a table with one column per split, and lists."""
    console.print(f"fingerprint {summary['fingerprint']}", highlight=False)
    splits: Mapping[str, Any] = summary["splits"]
    _print_figures(splits, ("shards", "blocks", "disk_bytes"), console)
    for name, split in splits.items():
        if len(split["corpora"]) > 1:
            console.print(f"\n{name}, by corpus")
            _print_figures(split["corpora"], (), console)
    for name, split in splits.items():
        console.print(f"\n{name}, documents by tokens", highlight=False)
        bars = {
            f"{int(least):,} – {2 * int(least) - 1:,}": count
            for least, count in split["length_histogram"].items()
        }
        _print_bars(bars, split["documents"], console)
        if split["labels"]:
            console.print(f"\n{name}, documents by label", highlight=False)
            unlabeled = {"(no label)": split["unlabeled"]} if split["unlabeled"] else {}
            _print_bars({**split["labels"], **unlabeled}, split["documents"], console)
    source = summary["source_documents"]
    console.print(f"\n{source:,} documents in the input", highlight=False)
    for title in ("rejected", "changed"):
        for reason, count in summary[title].items():
            line = f"{title}: {count:,} ({count / source:.2%} of the input) {reason}"
            console.print(line, highlight=False, markup=False)


def _print_figures(columns: Mapping[str, Any], more: tuple[str, ...], console: Console) -> None:
    table = Table("", box=None)
    for name in columns:
        table.add_column(name, justify="right")
    present = next(iter(columns.values()))
    for row in (*_COUNTS, *more):
        if row in present:
            table.add_row(
                row.replace("_", " "), *(f"{column[row]:,}" for column in columns.values())
            )
    for row in _RATIOS:
        if row in present:
            ratios = (f"{column[row]:.2f}" for column in columns.values())
            table.add_row(row.replace("_", " "), *ratios)
    if "vocabulary_used" in present:
        shares = (f"{column['vocabulary_used']:.1%}" for column in columns.values())
        table.add_row("vocabulary used", *shares)
    for share in present["document_tokens"]:
        lengths = (f"{column['document_tokens'][share]:,}" for column in columns.values())
        table.add_row(f"document length, {share}", *lengths)
    console.print(table)


def _print_bars(counts: Mapping[str, int], total: int, console: Console) -> None:
    table = Table(box=None, show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    most = max(counts.values(), default=0) or 1
    for name, count in counts.items():
        bar = "█" * round(_BAR_CHARACTERS * count / most)
        table.add_row(name, f"{count:,}", f"{count / total:.1%}", bar)
    console.print(table)


def document_heading(document: Mapping[str, Any]) -> str:
    """Return one line about a document, from the result of `document_summary`."""
    parts = [f"document {document['document']}", document["split"]]
    for name in ("id", "corpus", "label"):
        if document[name] is not None:
            parts.append(f"{name} {document[name]}")
    counts = ("tokens", "words", "sentences", "text_bytes")
    parts += [f"{document[name]:,} {name.replace('_', ' ')}" for name in counts]
    return " · ".join(parts)
