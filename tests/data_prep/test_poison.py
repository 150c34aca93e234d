"""Documents that crash or hang a step are left out, counted and named, under a limit."""

import json
from pathlib import Path
from typing import Any

import pytest
from prep_poison import POISONS, make_failing_marker, make_poisoned_worker
from prep_support import all_texts, build, files_of, make_documents, write_jsonl

from data_prep.errors import PrepError


def poisoned(path: Path, *poisons: str) -> tuple[Path, set[str]]:
    """An input with poisonous documents in its midst; also its good texts."""
    records: list[dict[str, Any]] = make_documents(90)
    good = {record["text"] for record in records}
    for place, poison in enumerate(poisons):
        records.insert(11 + 20 * place, {"text": poison})
    return write_jsonl(path, records), good


@pytest.mark.parametrize("workers", [1, 2])
def test_poisonous_documents_are_left_out_and_named(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    source, good = poisoned(tmp_path / "in.jsonl", *POISONS)
    output = tmp_path / "out"
    monkeypatch.setattr("data_prep.build.UnitWorker", make_poisoned_worker)
    manifest = build(
        [source], tokenizer_path, output, workers=workers, unit_bytes=9000, record_seconds=1.0
    )
    assert manifest.rejected == {"poisonous": 4}
    assert set(all_texts(output).values()) == good
    named = json.loads((output / "build.json").read_text())["examples"]["poisonous"]
    for line, how in (
        (12, "killed by signal 11 (SIGSEGV)"),
        (32, "took more than 1 s"),
        (52, "ended with exit code 3"),
        (72, "ZeroDivisionError: division by zero"),
    ):
        assert f"{source}:{line} ({how})" in named


def test_a_document_that_fails_in_a_batch_is_found(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, good = poisoned(tmp_path / "in.jsonl", "poison: raise 毒", "poison: segfault 毒")
    monkeypatch.setattr("data_prep.build.UnitWorker", make_failing_marker)
    manifest = build([source], tokenizer_path, tmp_path / "out", block_tokens=100_000)
    assert manifest.rejected == {"poisonous": 2}
    assert set(all_texts(tmp_path / "out").values()) == good


def test_more_than_the_limit_stop_the_build(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = poisoned(tmp_path / "in.jsonl", "poison: raise 毒", "poison: raise 毒")
    monkeypatch.setattr("data_prep.build.UnitWorker", make_poisoned_worker)
    with pytest.raises(PrepError, match=r"2 documents made a step crash .*in\.jsonl:12 \(Zero"):
        build([source], tokenizer_path, tmp_path / "out", max_poisonous=1)
    assert not (tmp_path / "out").exists()


def test_the_rest_is_what_it_would_be_without_them(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a document fails, and in however many processes, the same bytes come out."""
    source, _ = poisoned(tmp_path / "in.jsonl", "poison: segfault 毒", "poison: raise 毒")
    monkeypatch.setattr("data_prep.build.UnitWorker", make_poisoned_worker)
    outputs = [tmp_path / "one", tmp_path / "two"]
    for workers, output in enumerate(outputs, 1):
        build([source], tokenizer_path, output, workers=workers, unit_bytes=9000 * workers)
    one, two = map(files_of, outputs)
    assert one == two
