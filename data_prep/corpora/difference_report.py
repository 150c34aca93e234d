"""Reports how two corpora differ, as JSON values and as text."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.corpora.differing import (
    Differences,
    MatchBy,
    default_match,
    differing_documents,
    same_tokenizer,
)
from data_prep.corpora.reading import Corpus, StoredDocument

_TITLES = {
    "only_a": "only in A",
    "only_b": "only in B",
    "changed": "changed",
    "moved": "moved between the splits",
    "relabeled": "with another label",
}


def difference_summary(
    a: Corpus, b: Corpus, by: MatchBy | None, limit: int, text: bool
) -> dict[str, Any]:
    """Return how two corpora differ, as JSON values.

    Args:
        a: one corpus.
        b: the other corpus.
        by: how documents are matched; None for by id if both corpora keep ids, else by text.
        limit: largest number of documents of each kind to describe.
        text: whether to include their text.

    Raises:
        PrepError: a corpus is damaged, or keeps no ids to match by.
    """
    by = by or default_match(a, b)
    found: dict[str, Any] = {
        "a": str(a.folder),
        "b": str(b.folder),
        "identical": a.manifest.fingerprint == b.manifest.fingerprint,
        "matched_by": by,
        "compared_by": "tokens" if same_tokenizer(a, b) else "decoded text",
        "settings": _different_settings(a, b),
        "splits": {
            side: {
                name: {
                    "documents": split.info.documents,
                    "tokens": split.info.tokens,
                    "text_bytes": split.info.text_bytes,
                }
                for name, split in corpus.splits.items()
            }
            for side, corpus in (("a", a), ("b", b))
        },
    }
    if found["identical"]:
        documents = sum(split.info.documents for split in a.splits.values())
        return {**found, "same": documents, **dict.fromkeys(_TITLES, 0), "documents": {}}
    differences = differing_documents(a, b, by)
    kinds = differences.kinds()
    return {
        **found,
        "same": differences.same,
        **{kind: len(numbers) for kind, numbers in kinds.items()},
        "documents": {
            kind: list(_described(a, b, kind, differences, limit, text)) for kind in kinds
        },
    }


def has_differences(summary: Mapping[str, Any]) -> bool:
    """Return whether any document differs."""
    return any(summary[kind] for kind in _TITLES)


def _different_settings(a: Corpus, b: Corpus) -> dict[str, list[Any]]:
    """Return the settings and counts of the manifests that differ, from A and from B."""
    values = []
    for corpus in (a, b):
        manifest = corpus.manifest
        values.append(
            {
                **manifest.settings,
                "tokenizer": manifest.tokenizer.sha256,
                "labels": manifest.labels,
                "corpora": manifest.corpora,
                "keeps_ids": manifest.keeps_ids,
                "source_documents": manifest.source_documents,
                "rejected": manifest.rejected,
                "changed": manifest.changed,
            }
        )
    one, other = values
    names = dict.fromkeys([*one, *other])
    return {
        name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)
    }


def _described(
    a: Corpus, b: Corpus, kind: str, differences: Differences, limit: int, text: bool
) -> Iterator[dict[str, Any]]:
    """Yield the first documents of one kind of difference, each as it is in A and in B."""
    numbers = differences.kinds()[kind][:limit].tolist()
    for pair in numbers:
        number_a, number_b = {"only_a": (pair, None), "only_b": (None, pair)}.get(kind) or pair
        described: dict[str, Any] = {}
        for side, corpus, number in (("a", a, number_a), ("b", b, number_b)):
            if number is not None:
                described[side] = _document(corpus, corpus.find(number), text)
        yield described


def _document(corpus: Corpus, document: StoredDocument, text: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "document": document.number,
        "id": document.data.ids[0] if corpus.manifest.keeps_ids else None,
        "split": document.split,
        "label": corpus.label(document),
        "tokens": len(document.data.tokens),
    }
    if text:
        described["text"] = corpus.tokenizer.decode(document.data.tokens)
    return described


def difference_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of text for what `difference_summary` found."""
    if summary["identical"]:
        yield "identical: same fingerprint"
        return
    for name, (one, other) in summary["settings"].items():
        yield f"{name}: {_short(one)} in A, {_short(other)} in B"
    for side, splits in summary["splits"].items():
        counts = "; ".join(
            f"{name} {split['documents']:,} documents, {split['tokens']:,} tokens"
            for name, split in splits.items()
        )
        yield f"{side.upper()} {summary[side]}: {counts}"
    yield (
        f"{summary['same']:,} documents are the same "
        f"(matched by {summary['matched_by']}, compared by {summary['compared_by']})"
    )
    for kind, title in _TITLES.items():
        if summary[kind]:
            yield f"{summary[kind]:,} {title}"
            for sides in summary["documents"][kind]:
                yield "  " + " → ".join(_heading(side, one) for side, one in sides.items())
                yield from _text_lines(sides)
            if (left := summary[kind] - len(summary["documents"][kind])) > 0:
                yield f"  and {left:,} more"


def _heading(side: str, document: Mapping[str, Any]) -> str:
    parts = [f"{side.upper()} {document['document']}"]
    if document["id"]:
        parts.append(f"id {document['id']}")
    parts.append(document["split"])
    if document["label"] is not None:
        parts.append(f"label {document['label']}")
    return ", ".join([*parts, f"{document['tokens']:,} tokens"])


def _text_lines(sides: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of text that only one corpus has, as `diff` shows them."""
    if not any("text" in document for document in sides.values()):
        return
    one, other = (sides[side]["text"].splitlines() if side in sides else [] for side in "ab")
    changes = difflib.unified_diff(one, other, lineterm="", n=0)
    yield from (f"    {line}" for line in changes if not line.startswith(("---", "+++", "@@")))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
