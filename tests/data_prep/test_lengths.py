"""The lengths of a split: written in one pass, whole or not at all, and found after a kill."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_corpora import make_corpus, make_texts
from prep_support import assert_lengths, build, files_of
from pydantic import BaseModel

from data_prep.assembly import WrittenShard
from data_prep.errors import PrepError
from data_prep.lengths import write_lengths
from data_prep.manifest import SplitInfo
from data_prep.shard_writer import npy
from data_prep.shards import read_lengths
from data_prep.workspace import Workspace


@given(st.lists(st.lists(st.integers(1, 2**32 - 1), max_size=20)))
def test_however_they_come_the_bytes_are_those_of_one_array(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "parts.npy"
    with write_lengths(path) as add:
        for part in parts:
            add(np.array(part, dtype=np.int64))
    assert path.read_bytes() == npy(np.array([n for part in parts for n in part], dtype="<u4"))


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "train.lengths.npy"
    path.write_bytes(b"old")

    def fill_the_disk() -> None:
        with write_lengths(path) as add:
            add(np.arange(3))
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        fill_the_disk()
    assert error.value.filename == str(path)
    assert files_of(tmp_path) == {path.name: b"old"}


@pytest.fixture
def split(tmp_path: Path) -> SplitInfo:
    return make_corpus(tmp_path / "corpus", make_texts(40)).splits["train"]


def test_they_are_mapped_into_memory(split: SplitInfo, tmp_path: Path) -> None:
    lengths = read_lengths(tmp_path / "corpus", split)
    assert isinstance(lengths, np.memmap)
    assert (lengths.dtype, lengths.shape) == (np.uint32, (split.documents,))
    assert int(lengths.sum()) == split.tokens
    assert_lengths(tmp_path / "corpus")


def test_a_file_of_another_size_is_refused(split: SplitInfo, tmp_path: Path) -> None:
    path = tmp_path / "corpus" / split.lengths.file
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(PrepError, match=r"train\.lengths\.npy: \d+ bytes long, the manifest says"):
        read_lengths(tmp_path / "corpus", split)
    path.unlink()
    with pytest.raises(PrepError, match=r"train\.lengths\.npy: no such file, but the manifest"):
        read_lengths(tmp_path / "corpus", split)


@pytest.mark.parametrize("kind", ["<i4", "<f4", ">u4"])
def test_numbers_of_another_kind_are_refused(split: SplitInfo, tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "corpus" / split.lengths.file, np.ones(split.documents, dtype=kind))
    with pytest.raises(PrepError, match="not the lengths that the manifest describes"):
        read_lengths(tmp_path / "corpus", split)


def test_fewer_documents_are_refused(split: SplitInfo, tmp_path: Path) -> None:
    other = split.model_copy(update={"documents": split.documents - 1})
    with pytest.raises(PrepError, match="not the lengths that the manifest describes"):
        read_lengths(tmp_path / "corpus", other)


def test_a_finished_corpus_without_them_is_not_taken_for_sound(
    corpus_file: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    build([corpus_file], tokenizer_path, tmp_path / "out")
    (tmp_path / "out" / "valid.lengths.npy").unlink()
    with pytest.raises(PrepError, match=r"valid\.lengths\.npy: no such file"):
        build([corpus_file], tokenizer_path, tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_build_goes_on_in_the_midst_of_its_shards(
    corpus_file: Path,
    tokenizer_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    build([corpus_file], tokenizer_path, tmp_path / "fresh")
    finish, finished = Workspace.finish, []

    def stop_at_third(self: Workspace, key: str, record: BaseModel) -> None:
        if isinstance(record, WrittenShard):
            if len(finished) == 2:
                raise KeyboardInterrupt
            finished.append(record.info.file)
        finish(self, key, record)

    output, growing = tmp_path / "out", tmp_path / "out.partial" / "corpus"
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "finish", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            build([corpus_file], tokenizer_path, output, workers=workers, unit_bytes=9000)
    inodes = {name: (growing / name).stat().st_ino for name in finished}
    # What a kill may leave of a file that was being written, and a file that no one vouches for.
    (growing / "train.lengths.npy.partial").write_bytes(b"half")
    (growing / "valid.lengths.npy").write_bytes(b"of another plan")
    build([corpus_file], tokenizer_path, output, workers=workers, unit_bytes=9000)
    assert {name: (output / name).stat().st_ino for name in finished} == inodes
    assert files_of(output) == files_of(tmp_path / "fresh")
    assert_lengths(output)
    assert {path.name for path in tmp_path.iterdir()} == {"fresh", "out"}
