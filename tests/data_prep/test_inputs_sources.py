"""Finding files, and cutting them into units."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prep_inputs import jsonl, parquet, read, texts
from pydantic import ValidationError

from data_prep.errors import PrepError
from data_prep.inputs import InputSettings, SourceFile, find_files, plan_units

ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def find(*paths: str | Path, **settings: Any) -> list[SourceFile]:
    return find_files({"": InputSettings(paths=tuple(map(str, paths)), **settings)})


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


def test_folder_is_searched_in_order_of_names(tmp_path: Path) -> None:
    names = ("b.jsonl", "a/z.txt.GZ", "a/b.csv", ".hidden/x.txt", ".x.txt", "README.md", "我.txt")
    folder = fill(tmp_path / "in", *names)
    found = ["in/a/b.csv", "in/a/z.txt.GZ", "in/b.jsonl", "in/我.txt"]
    assert [file.name for file in find(folder)] == found
    assert [file.path for file in find(folder)] == [str(tmp_path / name) for name in found]


def test_folder_in_which_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path / "in", "a.txt"))
    assert [file.name for file in find(".")] == ["in/a.txt"]
    assert [file.name for file in find("*.txt")] == ["in/a.txt"]
    assert [file.name for file in find("a.txt")] == ["a.txt"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jsonl", ["in/a.jsonl", "in/b.jsonl"]),
        ("[b]*", ["in/b.jsonl"]),
        ("**/*.txt", ["in/c.txt", "in/x/d.txt", "in/x/y/e.txt"]),
        ("*/*", ["in/x/d.txt"]),
        ("x/**", ["x/d.txt", "x/y/e.txt"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, names: list[str]) -> None:
    fill(tmp_path / "in", "a.jsonl", "b.jsonl", "c.txt", "x/d.txt", "x/y/e.txt", "x/.f.txt", "q.md")
    assert [file.name for file in find(tmp_path / "in" / pattern)] == names


def test_name_that_looks_like_a_glob(tmp_path: Path) -> None:
    fill(tmp_path, "a[1].txt", "a1.txt")
    assert [file.name for file in find(tmp_path / "a[1].txt")] == ["a[1].txt"]


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    fill(tmp_path / "other", "b.txt")
    fill(tmp_path / "in", "a.txt")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    assert [file.name for file in find(tmp_path / "in")] == ["in/a.txt", "in/link/b.txt"]


def test_named_format_takes_any_suffix(tmp_path: Path) -> None:
    fill(tmp_path / "in", "part-00001", "part-00000.gz", "_SUCCESS", ".crc")
    found = find(tmp_path / "in", format="text")
    assert [file.name for file in found] == ["in/part-00000.gz", "in/part-00001"]
    assert [file.compression for file in found] == ["gzip", None]
    assert [file.name for file in find(tmp_path / "in" / "_SUCCESS", format="text")] == ["_SUCCESS"]


def test_corpora_keep_their_order_and_settings(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.txt", "c.txt")
    corpora = {
        "web": InputSettings(paths=(str(tmp_path / "b.txt"), str(tmp_path / "a.txt"))),
        "books": InputSettings(paths=(str(tmp_path / "c.txt"),), split_text="paragraph"),
    }
    found = find_files(corpora)
    assert [(file.name, file.corpus) for file in found] == [
        ("b.txt", 0),
        ("a.txt", 0),
        ("c.txt", 1),
    ]
    assert [file.divisible for file in found] == [False, False, True]


def test_file_url(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    assert find(f"file://{tmp_path}/a.txt") == find(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.jsonl"], "none.jsonl: no such file or folder"),
        (["book.pdf"], r"book\.pdf: input must be \.jsonl, .*\.gz, .*; or set the format"),
        (["empty"], r"empty: this folder holds no file to read; input is \.jsonl"),
        (["other"], "other: this folder holds no file to read; input is"),
        (["*.warc"], r"\*\.warc: this glob matches no file to read"),
        (["pipe.txt"], "pipe.txt: neither a file nor a folder"),
        (["a.txt", "."], "a.txt: given twice"),
        (["a.txt", "link.txt"], "link.txt: given twice"),
        (["weird://x/a.txt"], "weird://x/a.txt: Protocol not known: weird"),
    ],
)
def test_wrong_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str
) -> None:
    monkeypatch.chdir(fill(tmp_path, "book.pdf", "a.txt", "other/x.md", "other/y.pdf"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.txt").symlink_to("a.txt")
    (tmp_path / ".#lock.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(PrepError, match=message) as error:
        find(*names)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("pyarrow.parquet", "a.parquet", "parquet"),
        (ZSTD, "a.jsonl.zst", "zstd"),
        ("fsspec", "memory://a.txt", "remote"),
    ],
)
def test_missing_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(fill(tmp_path, "a.parquet", "a.jsonl.zst"))
    with pytest.raises(PrepError, match=rf"{name}: needs {module}; .*\[{extra}\]'"):
        find(name)


def test_optional_packages_are_loaded_only_when_needed() -> None:
    code = (
        "import sys, data_prep.inputs; print({'pyarrow', 'backports', 'fsspec'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"split_text": "separator"},
        {"separator": "=="},
        {"split_text": "separator", "separator": " "},
        {"split_text": "separator", "separator": "a\nb"},
        {"paths": ()},
        {"text_field": ""},
    ],
)
def test_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InputSettings(**{"paths": ("a",), **settings})


def test_small_files_share_a_unit(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("x" * 10)
    units = plan_units(find(tmp_path), 30)
    assert [len(unit.spans) for unit in units] == [3, 3, 3, 1]
    assert [unit.bytes for unit in units] == [30, 30, 30, 10]


def test_large_files_are_cut_and_compressed_ones_are_not(tmp_path: Path) -> None:
    rows = [{"text": f"the river {number}"} for number in range(100)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "b.csv").write_text("text\n" + "x\n" * 2000)
    units = plan_units(find(tmp_path), 1000)
    spans = [(span.file.name[-5:], span.start, span.end) for unit in units for span in unit.spans]
    size = len(jsonl(rows))
    assert spans == [
        *[("jsonl", start, min(start + 1000, size)) for start in range(0, size, 1000)],
        ("b.csv", 0, 4005),
    ]


@pytest.mark.parametrize("size", [1, 500, 1000, 1 << 20])
def test_row_groups_are_cut(tmp_path: Path, size: int) -> None:
    rows = [{"text": f"the river {number} 河"} for number in range(100)]
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(rows, rows_in_group=9))
    units = plan_units(find(path), size)
    assert sum(unit.bytes for unit in units) == path.stat().st_size
    ranges = [(span.start, span.end) for unit in units for span in unit.spans]
    assert [start for start, _ in ranges] == [0, *[end for _, end in ranges[:-1]]]
    assert ranges[-1][1] == 12
    assert len(units) == (12 if size == 1 else len(units))
    found = read(path, unit_bytes=size)
    assert texts(found) == [row["text"] for row in rows]
    assert str(found[50].place) == f"{path}, row 51"


def test_stamp_tells_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    (before,) = find(path)
    os.utime(path, ns=(0, 5))
    (after,) = find(path)
    assert before.stamp != after.stamp
    assert (before.name, before.bytes) == (after.name, after.bytes)
