"""Faults of CSV and Parquet: one clear line, or everything good around them and a count."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from prep_inputs import jsonl, parquet, read, texts
from prep_inputs_faults import MEND, ROWS, stopped

from data_prep.inputs import (
    Tally,
)


@pytest.mark.parametrize(
    ("data", "message", "reason", "kept"),
    [
        ("text,label\na,x\nb\nc,y\n", ":3: a row of 1 fields, but the header has 2", "csv", "ac"),
        ("text,label\na,x\nb,y,z\nc,y\n", ":3: a row of 3 fields, but", "csv", "ac"),
        ('text\na\n"b"c\nd\n', ":3: not a row of the table", "csv", "ad"),
        ('text\na\n"b\nc', ":3: the file ends inside a quoted field", "truncated", "a"),
        ("a river,x\nb,y\n", ":2: no field 'text' (fields: a river, x)", "text_missing", ""),
        ("text,text\nb,y\n", ":1: the header names the column 'text' twice", "csv", ""),
        ("", ":1: an empty file; the first row must name the columns", "csv", ""),
        ("text\n\n", "", "", ""),
    ],
)
def test_csv(tmp_path: Path, data: str, message: str, reason: str, kept: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(data)
    if message:
        assert f"{path}{message}" in stopped(path)
    tally = Tally()
    assert texts(read(path, errors="skip", tally=tally)) == list(kept)
    assert tally.rejected == ({reason: 1} if reason else {})


def test_csv_with_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"text,other\na,\xff\nb\xff,x\n")
    assert stopped(path) == f"{path}:3: not UTF-8 (byte 0xff){MEND}"
    assert texts(read(path, errors="skip")) == ["a"]
    assert texts(read(path, errors="replace")) == ["a", "b\ufffd"]


def test_csv_whose_header_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('"' + "one line\n and another 河流\n" * 50 + '"\nx\n')
    told = stopped(path)
    assert "no field 'text' (fields: one line and another 河流 one" in told
    assert len(told) < 500


def test_missing_fields_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,id\na,\nb,2\n,3\n")
    tally = Tally()
    assert texts(read(path, id_field="id", errors="skip", tally=tally)) == ["b"]
    assert tally.rejected == {"id_missing": 1, "empty": 1}


def test_parquet_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(parquet(ROWS)[:-20])
    (tmp_path / "z.jsonl").write_bytes(jsonl(ROWS))
    assert "in.parquet: not a Parquet file, or cut short (" in stopped(path)
    path.write_bytes(b"")
    assert "in.parquet: not a Parquet file, or cut short (" in stopped(path)
    tally = Tally()
    assert len(read(tmp_path, errors="skip", tally=tally)) == 50
    assert tally.rejected == {"corrupt": 1}


def test_damaged_row_group_is_left_out_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    data = bytearray(parquet(ROWS, rows_in_group=10))
    group = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(bytes(data))).metadata.row_group(2)
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    data[start : start + group.total_byte_size // 2] = b"\xff" * (group.total_byte_size // 2)
    path.write_bytes(data)
    assert stopped(path).startswith(f"{path}, row 21: the row group is damaged (")
    tally = Tally()
    kept = [row["text"] for row in ROWS[:20] + ROWS[30:]]
    assert texts(read(path, errors="skip", tally=tally)) == kept
    assert tally.rejected == {"corrupt": 10}


def test_parquet_columns(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table(
            {
                "text": pyarrow.array([b"a", b"\xff", None, b" ", b"c"]),
                "number": [1.0, 2.0, 3.0, 4.0, 5.0],
            }
        ),
        path,
    )
    assert "row 2: not UTF-8 (byte 0xff)" in stopped(path)
    tally = Tally()
    assert texts(read(path, errors="skip", tally=tally)) == ["a", "c"]
    assert tally.rejected == {"utf8": 1, "text_type": 1, "empty": 1}
    twice = pyarrow.Table.from_arrays([["a"], ["b"]], names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    assert "row 1: two columns have the name 'text'" in stopped(tmp_path / "twice.parquet")
    assert "row 1: no column 'body' (columns: text, number)" in stopped(path, text_field="body")
    assert "row 1: the label is of type number" in stopped(path, label_field="number")
    tally = Tally()
    read(path, text_field="body", errors="skip", tally=tally)
    assert tally.rejected == {"text_missing": 5}
    assert len(tally.examples["text_missing"]) == 3


def test_flipped_bit_in_a_parquet_page_with_checksum(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(
        table, path, write_page_checksum=True, compression="none", use_dictionary=False
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"the river 25")] ^= 1
    path.write_bytes(data)
    assert "the row group is damaged (could not verify page integrity" in stopped(path)
