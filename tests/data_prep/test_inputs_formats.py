"""The same documents come out of every format under every compression."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from prep_inputs import (
    COMPRESS,
    csv_table,
    json_array,
    jsonl,
    parquet,
    read,
    texts,
    tsv_table,
)
from prep_support import make_documents

from data_prep.inputs import Label

ROWS = [
    {
        "id": str(row["id"]),
        "text": row["text"].replace("\n\n", ' "a\\b"{[, '),
        "label": row["label"],
        "group": row["group"],
    }
    for row in make_documents(40)
]
FORMATS = ("jsonl", "ndjson", "json", "parquet", "csv", "tsv")


def content(form: str, folder: Path) -> bytes:
    if form == "json":
        return json_array(ROWS)
    if form == "parquet":
        return parquet(ROWS)
    if form == "csv":
        return csv_table(ROWS, folder)
    return tsv_table(ROWS) if form == "tsv" else jsonl(ROWS)


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize("form", FORMATS)
def test_tables(tmp_path: Path, form: str, compression: str) -> None:
    path = tmp_path / f"a.{form}{compression}"
    path.write_bytes(COMPRESS[compression](content(form, tmp_path)))
    found = read(path, unit_bytes=500, id_field="id", group_field="group")
    assert texts(found) == [row["text"] for row in ROWS]
    assert [document.utf8.decode() for document in found] == texts(found)
    assert [document.label for document in found] == [Label(r["label"], "string") for r in ROWS]
    assert [document.id for document in found] == [row["id"] for row in ROWS]
    assert [document.group for document in found] == [f'"{r["group"]}"'.encode() for r in ROWS]
    kind = {"json": ", item {}", "parquet": ", row {}"}.get(form, ":{}")
    first = 2 if form in ("csv", "tsv") else 1
    expected = [str(path) + kind.format(first + number) for number in range(len(ROWS))]
    assert [str(document.place) for document in found] == expected


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize(
    ("split", "separator", "between"),
    [
        ("line", None, "\n"),
        ("paragraph", None, "\n \n"),
        ("separator", "<|endoftext|>", "\n<|endoftext|>\n"),
        ("separator", "=====", "\n\n ===== \n"),
    ],
)
def test_text_divided(
    tmp_path: Path, compression: str, split: str, separator: str | None, between: str
) -> None:
    path = tmp_path / f"a.txt{compression}"
    path.write_bytes(COMPRESS[compression](between.join(row["text"] for row in ROWS).encode()))
    found = read(path, unit_bytes=300, split_text=split, separator=separator)
    assert texts(found) == [row["text"] for row in ROWS]
    step = between.count("\n")
    places = [f"{path}:{1 + step * number}" for number in range(len(ROWS))]
    assert [str(document.place) for document in found] == places


@pytest.mark.parametrize("compression", list(COMPRESS))
def test_text_as_one_document(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.txt{compression}"
    path.write_bytes(COMPRESS[compression]("\ufeffone\n\n二\n".encode()))
    (document,) = read(path, unit_bytes=3)
    assert (document.text, document.label, document.group) == ("one\n\n二\n", None, None)
    assert str(document.place) == f"{path}:1"


def test_members_and_frames_follow_each_other(tmp_path: Path) -> None:
    lines = [jsonl([row]) for row in ROWS]
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    for name, data in {
        "a.jsonl.gz": b"".join(map(gzip.compress, lines)) + bytes(512),
        "a.jsonl.zst": skippable + skippable.join(map(COMPRESS[".zst"], lines)),
        "a.jsonl.bz2": b"".join(map(COMPRESS[".bz2"], lines)),
        "a.jsonl.xz": b"".join(map(COMPRESS[".xz"], lines)),
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert texts(read(path)) == [row["text"] for row in ROWS]


def test_json_with_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS))
    found = read(path, unit_bytes=100)
    assert texts(found) == [row["text"] for row in ROWS]
    assert str(found[3].place) == f"{path}:4"


@pytest.mark.parametrize("before", ["", " \n\t", "\ufeff", "\ufeff \n"])
def test_json_array_after_white_space(tmp_path: Path, before: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(before.encode() + json_array(ROWS) + b"\n ")
    assert texts(read(path)) == [row["text"] for row in ROWS]
    path.write_bytes(before.encode() + b"[ ]\n")
    assert read(path) == []


def test_fields_inside_fields(tmp_path: Path) -> None:
    rows = [{"body": {"text": row["text"]}, "meta": {"lang": "en", "x.y": 1}} for row in ROWS]
    names = {"text_field": "body.text", "label_field": "meta.lang"}
    for path, data in (
        (tmp_path / "a.jsonl", jsonl(rows)),
        (tmp_path / "a.parquet", parquet(rows)),
    ):
        path.write_bytes(data)
        found = read(path, **names)
        assert texts(found) == [row["text"] for row in ROWS]
        assert {document.label for document in found} == {Label("en", "string")}
    path = tmp_path / "b.jsonl"
    path.write_text('{"a.b": "one", "a": {"b": "two"}}')
    assert texts(read(path, text_field="a.b")) == ["one"]


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.binary(),
        pyarrow.large_binary(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_parquet_types(tmp_path: Path, kind: pyarrow.DataType) -> None:
    values = ["the river", "我们", "the river", "x"]
    table = pyarrow.table(
        {
            "text": pyarrow.array(values, pyarrow.string()).cast(kind),
            "label": pyarrow.array([True, None, False, True]),
            "id": pyarrow.array([1, 2, 3, 4], pyarrow.uint64()),
            "unread": pyarrow.array([[1.5]] * 4),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", id_field="id")
    assert texts(found) == values
    assert [document.label and document.label.name for document in found] == [
        "true",
        None,
        "false",
        "true",
    ]
    assert [document.id for document in found] == ["1", "2", "3", "4"]


def test_csv_with_line_breaks_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,label\r\n"a\r\n""b"", c",\r\n\r\n我们,7\r\n'.encode())
    found = read(path)
    assert texts(found) == ['a\r\n"b", c', "我们"]
    assert [document.label for document in found] == [None, Label("7", "string")]
    assert [str(document.place) for document in found] == [f"{path}:2", f"{path}:5"]


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"a\tx\nb"\ty\n')
    assert texts(read(path)) == ['"a', 'b"']


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_long_records(tmp_path: Path, form: str) -> None:
    rows = [{"text": "我" * 3_000_000 + '"\n'}, {"text": "short"}]
    data = {
        "jsonl": jsonl,
        "json": json_array,
        "parquet": parquet,
        "csv": lambda rows: csv_table(rows, tmp_path),
    }[form](rows)
    path = tmp_path / f"a.{form}"
    path.write_bytes(data)
    assert texts(read(path, unit_bytes=100_000)) == [row["text"] for row in rows]


def test_nul_bytes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "a\0b"}))
    assert texts(read(tmp_path)) == ["a\0b", "a\0b"]
