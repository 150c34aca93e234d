"""Faults: one clear line, exit code 2, nothing half-written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prep_support import Prep, build, write_jsonl

from data_prep.errors import PrepError

GOOD = [{"text": f"the river {number}", "label": "a"} for number in range(50)]


def spoil(place: int, line: str | bytes) -> Callable[[Path], Path]:
    """Make an input whose line `place` (from 1) is `line`."""

    def make(folder: Path) -> Path:
        lines = [json.dumps(record).encode() for record in GOOD]
        lines[place - 1] = line if isinstance(line, bytes) else line.encode()
        path = folder / "in.jsonl"
        path.write_bytes(b"\n".join(lines))
        return path

    return make


def records(*extra: dict[str, Any]) -> Callable[[Path], Path]:
    return lambda folder: write_jsonl(folder / "in.jsonl", [*extra])


WRONG_INPUTS: list[tuple[Callable[[Path], Path], tuple[object, ...], str]] = [
    (spoil(37, b'{"text": "\xe6\x88"}'), (), "in.jsonl:37: not UTF-8 (byte 0xe6)"),
    (spoil(12, "{'text'}"), (), "in.jsonl:12: not a JSON object on one line"),
    (spoil(50, '{"body": "a"}'), (), "in.jsonl:50: no field 'text' (fields: body)"),
    (spoil(1, '{"text": 3}'), (), "in.jsonl:1: field 'text' is of type integer, not string"),
    (spoil(9, '{"text": "a", "label": [1]}'), (), "in.jsonl:9: the label is of type array"),
    (spoil(9, '{"text": "a", "label": 1}'), (), "in.jsonl:9: the label is of type integer"),
    (spoil(9, "{}"), ("--text-field", "body"), "in.jsonl:1: no field 'body' (fields: text, label)"),
    (spoil(9, "{}"), ("--group-field", "g"), "in.jsonl:1: no field 'g' to group by"),
    (spoil(9, "{}"), ("--errors", "skip", "--label-field", "kind"), "no document has a label"),
    (records(), (), "the input holds no document with text (0 rejected)"),
    (records({"text": " "}), (), "the input holds no document with text (1 rejected)"),
    (records(*GOOD[:2]), ("--valid-fraction", 1e-9), "the valid split would be empty: 2 documents"),
    (records(*GOOD[:2]), ("--valid-fraction", 1 - 1e-9), "the train split would be empty"),
    (records(*GOOD), ("--valid-fraction", 1.5), "valid_fraction: Input should be less than 1"),
    (lambda folder: folder / "none.txt", (), "none.txt: no such file or folder"),
    (lambda folder: folder, (), "this folder holds no file to read"),
]


@pytest.mark.parametrize(
    ("make", "options", "message"), WRONG_INPUTS, ids=[m for *_, m in WRONG_INPUTS]
)
def test_wrong_input(
    prep: Prep,
    tokenizer_path: Path,
    tmp_path: Path,
    make: Callable[[Path], Path],
    options: tuple[object, ...],
    message: str,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = make(tmp_path / "in")
    output = tmp_path / "out" / "corpus"
    base = ("--input", source, "--tokenizer", tokenizer_path, "--output", output, "--workers", 1)
    done = prep("build", *base, *options)
    assert done.code == 2
    assert done.err.startswith("megapt-prep: error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_fault_is_told_whatever_the_workers(
    tokenizer_path: Path, tmp_path: Path, workers: int
) -> None:
    source = spoil(41, "{")(tmp_path)
    source.write_bytes(source.read_bytes().replace(b"river 47", b"\xff"))
    with pytest.raises(PrepError, match=r"in\.jsonl:41: not a JSON object"):
        build([source], tokenizer_path, tmp_path / "out", workers=workers, unit_bytes=200)


def test_folder_that_is_no_corpus_is_left_alone(
    prep: Prep, corpus_file: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    base = ("build", "--input", corpus_file, "--tokenizer", tokenizer_path, "--output", tmp_path)
    for extra in ((), ("--overwrite",)):
        done = prep(*base, *extra)
        assert done.code == 2
        assert "exists and is not a corpus" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_unknown_option_ends_with_code_2(prep: Prep) -> None:
    assert prep("build", "--color", "red").code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_may_not_be_written(
    prep: Prep, corpus_file: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    base = ("--input", corpus_file, "--tokenizer", tokenizer_path, "--output", tmp_path / "out")
    done = prep("build", *base)
    assert done.code == 2
    assert "Permission denied" in done.err
    assert done.err.count("\n") == 1
