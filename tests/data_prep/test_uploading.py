"""Corpora at URLs. A folder behind file:// stands for the object store."""

from pathlib import Path

import pytest
from prep_support import Outcome, Prep, files_of, make_documents, write_jsonl

from data_prep.errors import PrepError
from data_prep.execution import LocalExecutor
from data_prep.pipeline.uploading import upload_corpus


class Store:
    """A build whose corpus goes to a URL."""

    def __init__(self, prep: Prep, tokenizer: Path, folder: Path) -> None:
        self.prep = prep
        self.tokenizer = tokenizer
        self.source = write_jsonl(folder / "in.jsonl", make_documents(80))
        self.remote = folder / "bucket" / "corpus"
        self.url = f"file://{self.remote}"
        self.work = folder / "work"

    def build(self, *options: object) -> Outcome:
        paths = ("--input", self.source, "--tokenizer", self.tokenizer, "--valid-fraction", 0.1)
        return self.prep("build", *paths, "--output", self.url, "--work", self.work, *options)


@pytest.fixture
def store(prep: Prep, tokenizer_path: Path, tmp_path: Path) -> Store:
    return Store(prep, tokenizer_path, tmp_path)


def test_a_corpus_goes_to_a_url_once(store: Store, prep: Prep) -> None:
    first = store.build()
    assert (first.code, first.err) == (0, "")
    assert f"{store.url}: built" in first.out
    assert files_of(store.remote) == files_of(store.work / "corpus")
    assert prep("verify", store.remote).code == 0
    assert f"{store.url}: already built" in store.build().out


def test_another_corpus_there_is_replaced_only_if_asked(store: Store, tmp_path: Path) -> None:
    assert store.build().code == 0
    before = files_of(store.remote)
    store.work = tmp_path / "other"
    done = store.build("--seed", 5)
    assert done.code == 2
    assert f"{store.url}: holds another corpus" in done.err
    assert files_of(store.remote) == before
    assert store.build("--seed", 5, "--overwrite").code == 0
    assert files_of(store.remote) == files_of(store.work / "corpus")


def test_an_interrupted_upload_goes_on_and_shows_no_manifest_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        # The manifest is put by this process, when everything else is there.
        patch.setattr("data_prep.pipeline.uploading._put", stop)
        assert store.build().code == 130
    there = files_of(store.remote)
    assert "train-000000.tar" in there
    assert "manifest.json" not in there
    times = {path.name: path.stat().st_mtime_ns for path in store.remote.iterdir()}
    assert store.build().code == 0
    after = {path.name: path.stat().st_mtime_ns for path in store.remote.iterdir()}
    assert {name: after[name] for name in times} == times, "nothing is copied twice"
    assert files_of(store.remote) == files_of(store.work / "corpus")
    assert [path.name for path in store.work.iterdir()] == ["corpus"]


def test_what_is_no_corpus_is_left_alone(store: Store) -> None:
    store.remote.mkdir(parents=True)
    (store.remote / "manifest.json").write_text("{}")
    done = store.build()
    assert done.code == 2
    assert "exists and is not the manifest of a corpus" in done.err
    assert (store.remote / "manifest.json").read_text() == "{}"


def test_a_store_that_refuses_is_named(store: Store, tmp_path: Path) -> None:
    assert store.build().code == 0
    (tmp_path / "file").touch()
    with (
        LocalExecutor(1) as executor,
        pytest.raises(PrepError, match=r"file/corpus: cannot be written"),
    ):
        upload_corpus(store.work / "corpus", f"file://{tmp_path}/file/corpus", executor)
    with LocalExecutor(1) as executor, pytest.raises(PrepError, match="nowhere://a"):
        upload_corpus(store.work / "corpus", "nowhere://a", executor)
