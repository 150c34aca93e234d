"""Files at URLs: an object store in memory, and web servers with and without their vices."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from prep_inputs import COMPRESS, jsonl, parquet, read, texts
from prep_support import make_documents

from data_prep.errors import PrepError
from data_prep.inputs import InputSettings, Tally, find_files, plan_units, read_documents

ROWS = [{"text": row["text"], "label": row["label"]} for row in make_documents(40)]
TEXTS = [row["text"] for row in ROWS]
FILES = {
    "a/b.jsonl": jsonl(ROWS),
    "a/c.jsonl.zst": COMPRESS[".zst"](jsonl(ROWS)),
    "b.parquet": parquet(ROWS),
    "d.txt": "\n\n".join(text.replace("\n\n", "\n") for text in TEXTS).encode(),
    ".hidden.txt": b"hidden",
    "README.md": b"about",
}


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves whole files only, and stops in the midst of `cut`."""

    cut: ClassVar[str] = "none"

    def log_message(self, *_: Any) -> None: ...

    def copyfile(self, source: Any, output: Any) -> None:
        output.write(source.read()[: 1000 if self.path.endswith(self.cut) else None])


@pytest.fixture
def store() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for name, data in FILES.items():
        system.pipe(f"/bucket/in/{name}", data)
    yield "memory://bucket/in"
    system.rm("/bucket", recursive=True)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    for name, data in FILES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    handler = functools.partial(Server, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/in"
        server.shutdown()
        thread.join()


def names(*paths: str) -> list[str]:
    return [file.name for file in find_files({"": InputSettings(paths=paths)})]


def test_folders_and_globs_of_a_store(store: str) -> None:
    found = ["in/a/b.jsonl", "in/a/c.jsonl.zst", "in/b.parquet", "in/d.txt"]
    assert names(store) == found
    assert names(f"{store}/") == found
    assert names(f"{store}/**") == found
    assert names(f"{store}/a/*.jsonl") == ["a/b.jsonl"]
    assert names(f"{store}/d.txt") == ["d.txt"]


def test_documents_of_a_store(store: str) -> None:
    found = read(store, unit_bytes=1000, split_text="paragraph")
    assert [text.replace("\n", "") for text in texts(found)] == [
        text.replace("\n", "") for text in TEXTS * 4
    ]
    assert str(found[2].place) == "memory://bucket/in/a/b.jsonl:3"
    late = found[39].place
    assert str(late) == f"{late.file.path}, line {late.number} after byte {late.start}"
    assert str(found[80].place) == "memory://bucket/in/b.parquet, row 1"


def test_faults_in_a_store(store: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/in/a/c.jsonl.zst", FILES["a/c.jsonl.zst"][:-9])
    with pytest.raises(PrepError, match=r"c\.jsonl\.zst:1: the zstd data are cut short"):
        read(f"{store}/a")
    tally = Tally()
    assert texts(read(f"{store}/a", errors="skip", tally=tally)) == TEXTS
    assert tally.rejected == {"truncated": 1}
    system.pipe("/bucket/in/b.parquet", b"PAR1")
    with pytest.raises(PrepError, match=r"b\.parquet: not a Parquet file, or cut short"):
        read(store)


def test_file_that_went_away_is_never_skipped(store: str) -> None:
    corpus = InputSettings(paths=(f"{store}/a/b.jsonl",))
    (unit,) = plan_units(find_files({"": corpus}))
    fsspec.filesystem("memory").rm("/bucket/in/a/b.jsonl")
    with pytest.raises(PrepError, match=r"b\.jsonl: cannot be read \(FileNotFoundError"):
        list(read_documents(unit, [corpus], "skip", Tally()))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory://bucket/none", "memory://bucket/none: no such file or folder"),
        ("memory://bucket/*.txt", r"memory://bucket/\*.txt: this glob matches no file to read"),
        ("memory://bucket/in/README.md", "README.md: input must be .jsonl"),
    ],
)
def test_wrong_urls(store: str, path: str, message: str) -> None:
    with pytest.raises(PrepError, match=message):
        names(path)


def test_protocol_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(PrepError, match=r"s3://b/a\.txt: Install s3fs .*'megapt\[remote\]'"):
        names("s3://b/a.txt")


def test_same_url_twice(store: str) -> None:
    with pytest.raises(PrepError, match=r"b\.jsonl: given twice"):
        names(store, f"{store}/a/b.jsonl")


@pytest.mark.parametrize("name", ["a/b.jsonl", "a/c.jsonl.zst", "b.parquet"])
def test_web_server_without_ranges(web: str, name: str) -> None:
    assert texts(read(f"{web}/{name}?download=true", unit_bytes=500)) == TEXTS


def test_folder_of_a_web_server(web: str) -> None:
    assert texts(read(f"{web}/a/")) == TEXTS * 2


@pytest.mark.parametrize("name", ["a/b.jsonl", "a/c.jsonl.zst", "b.parquet"])
def test_broken_connection_is_never_skipped(
    web: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "cut", name)
    with pytest.raises(PrepError, match=rf"{name}: cannot be read \(") as error:
        read(f"{web}/{name}", errors="skip")
    assert "\n" not in str(error.value)


def test_web_page_that_is_not_there(web: str) -> None:
    with pytest.raises(PrepError, match=r"none\.jsonl: no such file or folder"):
        read(f"{web}/none.jsonl")
