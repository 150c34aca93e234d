"""Faults of files: one clear line, or everything good around them and a count."""

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from prep_inputs import COMPRESS, json_array, jsonl, parquet, read, texts
from prep_inputs_faults import MEND, ROWS, others, spoil, stopped

from data_prep.errors import PrepError
from data_prep.inputs import (
    InputSettings,
    Place,
    SourceFile,
    Tally,
    find_files,
    plan_units,
    read_documents,
)
from data_prep.inputs import places as places_module


@pytest.mark.parametrize(
    ("number", "line", "reason", "message"),
    [
        (37, b'{"text": "\xe6\x88"}', "utf8", "not UTF-8 (byte 0xe6)"),
        (12, b"{'text'}", "json", "not a JSON object on one line (Expecting property name"),
        (50, b'{"body": "a"}', "text_missing", "no field 'text' (fields: body)"),
        (1, b'{"text": 3}', "text_type", "field 'text' is of type integer, not string"),
        (9, b'{"text": "a", "label": [1]}', "label_type", "the label is of type array"),
        (9, b'{"text": "a\0b"}', "json", "Invalid control character"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_lines(
    tmp_path: Path, number: int, line: bytes, reason: str, message: str, suffix: str
) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(COMPRESS[path.suffix if suffix != ".jsonl" else ""](spoil(number, line)))
    told = stopped(path, unit_bytes=200)
    assert told.startswith(
        f"{path}:{number}: {message}" if reason != "json" else f"{path}:{number}: "
    )
    assert message in told
    assert told.endswith(MEND)
    tally = Tally()
    assert texts(read(path, unit_bytes=200, errors="skip", tally=tally)) == others(number)
    assert tally.rejected == {reason: 1}
    assert tally.examples == {reason: [told.removesuffix(MEND)]}
    assert tally.records == 50


def test_empty_documents_never_stop(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(spoil(3, b'{"text": " "}'))
    tally = Tally()
    assert texts(read(path, tally=tally)) == others(3)
    assert tally.rejected == {"empty": 1}
    (tmp_path / "empty.txt").touch()
    assert read(tmp_path / "empty.txt", tally=tally) == []
    assert tally.rejected == {"empty": 2}
    (tmp_path / "none.jsonl").touch()
    assert read(tmp_path / "none.jsonl", tally=tally) == []
    assert tally.records == 51


def test_replacing_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(spoil(3, b'{"text": "a\xffb"}'))
    tally = Tally()
    assert texts(read(path, errors="replace", tally=tally))[2] == "a\ufffdb"
    assert tally.changed == {"utf8_replaced": 1}
    path.write_bytes(spoil(3, b"{"))
    with pytest.raises(PrepError, match=r"in.jsonl:3: not a JSON object"):
        read(path, errors="replace")


def test_last_line_cut(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(ROWS)[:-12])
    assert "in.jsonl:50: the last line is cut short" in stopped(path)
    tally = Tally()
    assert texts(read(path, errors="skip", tally=tally)) == others(50)
    assert tally.rejected == {"truncated": 1}


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "paragraph"])
def test_compressed_data_cut_short(tmp_path: Path, suffix: str, form: str) -> None:
    rng = random.Random(7)
    rows = [{"text": "".join(rng.choices("abcdefgh河流 ", k=1500))} for _ in range(200)]
    plain = {
        "jsonl": jsonl(rows),
        "json": json_array(rows),
        "csv": "".join(["text\n", *(row["text"] + "\n" for row in rows)]).encode(),
        "paragraph": "\n\n".join(row["text"] for row in rows).encode(),
    }[form]
    data = COMPRESS[suffix](plain)
    name = f"in.txt{suffix}" if form == "paragraph" else f"in.{form}{suffix}"
    options = {"split_text": "paragraph"} if form == "paragraph" else {}
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    assert "data are cut short" in stopped(path, **options)
    tally = Tally()
    found = texts(read(path, errors="skip", tally=tally, **options))
    # A decompressor gives nothing of a block that is not whole: 900 kB of bzip2's.
    assert len(found) >= (0 if suffix in (".bz2", ".xz") else 50)
    assert found == [row["text"] for row in rows][: len(found)]
    assert tally.rejected == {"truncated": 1}
    assert tally.records == len(found) + 1


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_compressed_data_damaged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.jsonl{suffix}"
    good = COMPRESS[suffix](jsonl(ROWS[:10]))
    path.write_bytes(good + b"\0garbage" * 9)
    tally = Tally()
    assert texts(read(path, errors="skip", tally=tally))[:10] == texts_of(10)
    if suffix in (".gz", ".zst"):  # bz2 and xz leave out what follows their streams
        assert tally.rejected == {"corrupt": 1}
        assert stopped(path).startswith(f"{path}:11: ")
    path.write_bytes(b"no such data at all")
    assert "data are damaged" in stopped(path)
    path.write_bytes(b"")
    assert "data are empty" in stopped(path)


def texts_of(count: int) -> list[str]:
    return [row["text"] for row in ROWS[:count]]


def test_flipped_bit_in_gzip(tmp_path: Path) -> None:
    data = bytearray(COMPRESS[".gz"](jsonl(ROWS)))
    data[-6] ^= 1  # of the checksum
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(data)
    assert "the gzip data are damaged (CRC check failed" in stopped(path)
    tally = Tally()
    assert len(read(path, errors="skip", tally=tally)) == 50
    assert tally.rejected == {"corrupt": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.txt", "in.csv", "in.jsonl.gz"])
def test_utf16(tmp_path: Path, encoding: str, name: str) -> None:
    mark = "\ufeff" if encoding.endswith("be") else ""
    plain = (mark + jsonl(ROWS).decode()).encode(encoding)
    path = tmp_path / name
    path.write_bytes(COMPRESS[path.suffix](plain) if path.suffix == ".gz" else plain)
    assert f"{path}:1: text in UTF-16 or UTF-32, not UTF-8; convert it" in stopped(path)
    tally = Tally()
    assert read(path, unit_bytes=100, errors="skip", tally=tally) == []
    assert tally.rejected == {"utf16": 1}


@pytest.mark.parametrize(
    ("data", "message", "reason", "kept"),
    [
        (b'[{"text": "a"}, {"text": "b"}', ", item 2: the file ends inside", "truncated", ["a"]),
        (b'[{"text": "a"}, {"text": ', ", item 2: the file ends inside", "truncated", ["a"]),
        (
            b'[{"text": "a"}, {"text": b}, {"text": "c"}]',
            ", item 2: not a JSON",
            "json",
            ["a", "c"],
        ),
        (b'[{"text": "a"}, 7, {"text": "c"}]', "item 2: JSON of type integer", "json", ["a", "c"]),
        (b'[{"text": "a"},]', ", item 2: not a JSON object (Expecting value)", "json", ["a"]),
        (b'[{"text": "a"}] x', ", item 2: more text after the end", "json", ["a"]),
        (b'[{"text": "\xff"}, {"text": "b"}]', ", item 1: not UTF-8", "utf8", ["b"]),
        (b'[{"text": "a"}}, {"text": "b"}]', ", item 1: not a JSON", "json", ["b"]),
    ],
)
def test_arrays(tmp_path: Path, data: bytes, message: str, reason: str, kept: list[str]) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(data)
    assert message in stopped(path)
    tally = Tally()
    assert texts(read(path, errors="skip", tally=tally)) == kept
    assert tally.rejected == {reason: 1}


def test_records_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("records", "lines", "json_array", "tables"):
        monkeypatch.setattr(f"data_prep.inputs.{module}.RECORD_BYTES", 1 << 20)
    long = "x" * (3 << 20)
    for name, data, kept, options in (
        ("a.jsonl", f'{{"text": "{long}"}}\n{{"text": "b"}}\n', ["b"], {}),
        ("a.txt", f"a\n{long}\nb", ["a", "b"], {"split_text": "line"}),
        ("b.txt", f"a\n\nx\n{long}\n\nb", ["a", "b"], {"split_text": "paragraph"}),
        ("c.txt", long, [], {}),
        ("a.json", f'[{{"text": "a"}}, {{"text": "{long}"}}, {{"text": "b"}}]', ["a"], {}),
    ):
        path = tmp_path / name
        path.write_text(data)
        assert " is longer than 1 MiB" in stopped(path, **options)
        tally = Tally()
        assert texts(read(path, errors="skip", tally=tally, **options)) == kept
        assert tally.rejected == {"too_long": 1}
    path = tmp_path / "a.csv"
    path.write_text(f"text\na\n{long}\nb\n")
    assert "a.csv:3: not a row of the table (field larger than field limit" in stopped(path)
    assert texts(read(path, errors="skip")) == ["a", "b"]


def test_file_changed_since_it_was_found(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(ROWS))
    corpus = InputSettings(paths=(str(path),))
    (unit,) = plan_units(find_files({"": corpus}))
    path.write_bytes(jsonl(ROWS[:10]))
    with pytest.raises(PrepError, match=r"in\.jsonl: was changed while the corpus was built"):
        list(read_documents(unit, [corpus], "skip", Tally()))


def test_places_far_into_a_file_are_printed_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_module, "_QUICK_READ_BYTES", 1000)
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(ROWS))
    found = read(path, unit_bytes=500)
    place = found[45].place
    assert place.start > 1000
    assert path.read_bytes()[place.start :].split(b"\n")[place.number - 1] == jsonl([ROWS[45]])[:-1]
    assert place.quickly() == f"{path}, line {place.number} after byte {place.start}"
    assert str(place) == f"{path}:46"
    assert found[5].place.quickly() == f"{path}:6"
    remote = SourceFile("s3://b/x.jsonl", "x.jsonl", "jsonl", None, 9, "", 0, True)
    assert str(Place(remote, "line", 2, 300)) == "s3://b/x.jsonl, line 2 after byte 300"
    assert str(Place(remote, "line", 2)) == "s3://b/x.jsonl:2"


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.jsonl.zst", "in.json", "in.csv", "in.parquet"])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, name: str, write_large: Callable[[Path, int], None]
) -> None:
    peaks = []
    for size in (1, 4):
        path = tmp_path / str(size) / name
        path.parent.mkdir()
        write_large(path, 4_000_000 * size)
        corpus = InputSettings(paths=(str(path),))
        units = plan_units(find_files({"": corpus}))
        tracemalloc.start()
        count = sum(1 for unit in units for _ in read_documents(unit, [corpus], "stop", Tally()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == 4000 * size
    assert peaks[1] < 1.2 * peaks[0] + 500_000


@pytest.fixture
def write_large() -> Callable[[Path, int], None]:
    def write(path: Path, size: int) -> None:
        rng = random.Random(1)
        words = [rng.randbytes(450).hex() for _ in range(200)]
        rows = [
            {"text": f"{words[number % 200]} {number:9d} 河流 "} for number in range(size // 1000)
        ]
        plain = jsonl(rows)
        if path.suffix == ".parquet":
            data = parquet(rows, rows_in_group=1000)
        elif path.suffix == ".json":
            data = json.dumps(rows).encode()
        elif path.suffix == ".csv":
            data = "".join(["text\n", *(row["text"] + "\n" for row in rows)]).encode()
        else:
            data = COMPRESS[path.suffix](plain)
        path.write_bytes(data)

    return write
