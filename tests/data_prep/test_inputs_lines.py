"""Byte ranges of any size give the same records, and arrays are cut where JSON is."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_inputs import read, texts

from data_prep.inputs import InputSettings, find_files, opening, plan_units
from data_prep.inputs.documents import read_records
from data_prep.inputs.records import Record

LINES = st.lists(
    st.sampled_from([b"one", b"two words", b"x" * 50, b"", b"  ", "我".encode(), b"=="])
)
ENDS = st.sampled_from([b"\n", b"\r\n"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def records(path: Path, unit_bytes: int, **options: str) -> list[Record]:
    corpus = InputSettings(paths=(str(path),), **options)
    units = plan_units(find_files({"": corpus}), unit_bytes)
    assert [unit.number for unit in units] == list(range(len(units)))
    return [
        record for unit in units for span in unit.spans for record in read_records(span, corpus)
    ]


@given(LINES, ENDS, st.booleans(), st.integers(1, 80), st.sampled_from(["jsonl", "text"]))
@settings(deadline=None)
def test_lines_are_read_once_whatever_the_ranges(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    end: bytes,
    last: bool,
    size: int,
    form: str,
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(end.join(lines) + end * last)
    found = records(path, size, format=form, split_text="line")
    expected = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    assert [bytes(record.content).rstrip(b"\r\n") for record in found] == [
        line for _, line in expected
    ]
    assert [str(record.place) for record in found] == [f"{path}:{number}" for number, _ in expected]


@given(LINES, ENDS, st.booleans(), st.integers(1, 80), st.sampled_from(["", "=="]))
@settings(deadline=None)
def test_passages_are_read_once_whatever_the_ranges(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    end: bytes,
    last: bool,
    size: int,
    separator: str,
) -> None:
    path = tmp_path_factory.mktemp("passages") / "file.txt"
    path.write_bytes(end.join(lines) + end * last)
    expected: list[list[tuple[int, bytes]]] = [[]]
    for number, line in enumerate(lines, 1):
        if line.strip() == separator.encode():
            expected.append([])
        elif line.strip() or expected[-1]:
            expected[-1].append((number, line))
    split = {"split_text": "separator", "separator": separator}
    options = split if separator else {"split_text": "paragraph"}
    found = records(path, size, **options)
    assert [record.content for record in found] == [
        end.join(line for _, line in part).rstrip(b"\r\n") for part in expected if part
    ]
    places = [f"{path}:{part[0][0]}" for part in expected if part]
    assert [str(record.place) for record in found] == places


def test_ranges_inside_a_line_longer_than_a_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    long = "x" * (3 << 20)
    path.write_text(f"a\n{long}\nb\n")
    for size in (1 << 19, 1 << 20, 1 << 21):
        assert texts(read(path, unit_bytes=size, split_text="line")) == ["a", long, "b"]


@given(st.lists(JSON), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
@settings(deadline=None)
def test_arrays_are_cut_into_items(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[object],
    indent: int | None,
    ascii_only: bool,
    buffer: int,
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "file.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=ascii_only), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "BUFFER_BYTES", buffer)
        patch.setattr("data_prep.inputs.json_array.BUFFER_BYTES", buffer)
        found = records(path, 1 << 20)
    assert [json.loads(bytes(record.content)) for record in found] == items
