"""A corpus: its documents as they were written, and every damage told in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from data_prep.shards import open_shards
from megapt.config import ReadingConfig
from megapt.data import Corpus, WindowStream
from megapt.errors import ConfigError, DamagedError, MegaptError
from tests.corpora import make_documents


@pytest.fixture
def copied(corpus_folder: Path, tmp_path: Path) -> Path:
    """A corpus that a test may damage."""
    return shutil.copytree(corpus_folder, tmp_path / "corpus")


def first_shard(folder: Path) -> Path:
    return min(folder.glob("train-*.tar"))


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with open(file, "r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def assert_one_line(error: pytest.ExceptionInfo[MegaptError], *parts: str) -> None:
    text = str(error.value)
    assert len(text.splitlines()) == 1
    for part in parts:
        assert part in text


@pytest.mark.parametrize("name", ["train", "valid"])
def test_every_document_is_read_as_it_was_written(
    corpus: Corpus, corpus_folder: Path, name: str
) -> None:
    split = corpus.splits[name]
    place = 0
    for shard in open_shards(corpus_folder, split.info):
        for number in range(len(shard)):
            block = shard.block(number)
            ends = np.cumsum(block.lens)
            for i, end in enumerate(ends):
                where = slice(int(end - block.lens[i]), int(end))
                piece = split.piece(place)
                assert piece.tokens.dtype == block.tokens.dtype
                assert piece.tokens.tolist() == block.tokens[where].tolist()
                assert piece.word_starts.tolist() == block.words[where].tolist()
                assert piece.sentence_starts.tolist() == block.sentences[where].tolist()
                assert (piece.document, piece.label) == (block.documents[i], block.labels[i])
                assert piece.starts_document
                assert piece.ends_document
                assert split.lengths[place] == block.lens[i]
                assert split.labels[place] == block.labels[i]
                place += 1
    assert place == len(split) == split.info.documents


def test_the_index_tells_what_every_shard_and_block_holds(
    corpus: Corpus, corpus_folder: Path
) -> None:
    split = corpus.train
    document = 0
    for number, shard in enumerate(open_shards(corpus_folder, split.info)):
        blocks = [shard.block(block) for block in range(len(shard))]
        assert split.shard_documents[number] == document
        assert split.shard_tokens[number] == sum(len(block.tokens) for block in blocks)
        assert split.block_tokens(number).tolist() == [len(block.tokens) for block in blocks]
        for place, block in enumerate(blocks):
            assert split.block_table(number)[place].tolist() == [len(block), len(block.tokens)]
            assert split.block_documents(number, place) == (document, document + len(block))
            document += len(block)
    assert split.shard_documents[-1] == document == len(split)


def test_a_part_of_a_document_begins_a_word_and_a_sentence(corpus: Corpus) -> None:
    split = corpus.train
    document = int(split.lengths.argmax())
    whole = split.piece(document)
    for start in range(1, len(whole.tokens)):
        part = split.piece(document, start, min(start + 5, len(whole.tokens)))
        assert part.tokens.tolist() == whole.tokens[start : start + 5].tolist()
        assert part.word_starts[0]
        assert part.sentence_starts[0]
        assert part.word_starts[1:].tolist() == whole.word_starts[start + 1 : start + 5].tolist()
        assert not part.starts_document
        assert part.ends_document == (start + 5 >= len(whole.tokens))


def test_reading_a_part_leaves_the_document_as_it_was(corpus: Corpus) -> None:
    document = int(corpus.train.lengths.argmax())
    before = corpus.train.piece(document).word_starts
    part = corpus.train.piece(document, 3, 9)
    part.word_starts[:] = True
    with pytest.raises(ValueError, match="read-only"):
        part.tokens[:] = 0
    assert corpus.train.piece(document).word_starts.tolist() == before.tolist()
    assert corpus.train.piece(document, 3, 9).tokens.all()


def test_the_tokenizer_turns_a_document_back_into_its_text(corpus: Corpus) -> None:
    text = corpus.tokenizer().decode(corpus.train.piece(1).tokens)
    assert text.strip()
    assert corpus.tokenizer().encode(text).tolist() == corpus.train.piece(1).tokens.tolist()


def test_classes_are_numbered_by_the_names_they_are_given(corpus_folder: Path) -> None:
    corpus = Corpus(corpus_folder)
    assert corpus.labels == ["field", "sea"]
    before = corpus.train.piece(1).label
    for names in (["air", "field", "fire", "sea"], ["sea", "field"]):
        corpus.name_classes(names)
        assert corpus.labels == names
        renamed = names.index(["field", "sea"][before])
        assert corpus.train.piece(1).label == renamed
        assert corpus.validation.classes.tolist() == [names.index("field"), names.index("sea"), -1]
    assert corpus.train.labels[1] == renamed


def test_documents_without_a_class_are_counted(build_another: Callable[..., Path]) -> None:
    corpus = Corpus(build_another(make_documents(40)))
    assert corpus.labels == []
    assert corpus.unlabeled == len(corpus.train)
    corpus.name_classes(["field", "sea"])
    assert set(corpus.train.labels.tolist()) == {corpus.train.piece(0).label} == {-1}


def test_whole_shards_pass_the_check(corpus: Corpus) -> None:
    corpus.verify()


def test_a_flipped_byte_is_found_by_the_rank_that_checks_its_shard(copied: Path) -> None:
    shard = first_shard(copied)
    overwrite(shard, 700, b"\xff")
    corpus = Corpus(copied)
    with pytest.raises(DamagedError) as error:
        corpus.verify(rank=0, world=2)
    assert_one_line(error, shard.name, "sha256")
    corpus.verify(rank=1, world=2)


@pytest.mark.parametrize("file", ["train.index.npy", "valid.lengths.npy"])
def test_a_flipped_byte_of_an_index_is_found_by_the_first_rank(copied: Path, file: str) -> None:
    overwrite(copied / file, (copied / file).stat().st_size - 2, b"\x01")
    corpus = Corpus(copied)
    with pytest.raises(DamagedError) as error:
        corpus.verify(rank=0, world=2)
    assert_one_line(error, file, "sha256")
    corpus.verify(rank=1, world=2)


@pytest.mark.parametrize(("name", "told"), [("train", "training"), ("valid", "validation")])
def test_a_corpus_without_the_split_that_is_asked_for_says_so(
    corpus_folder: Path, name: Literal["train", "valid"], told: str
) -> None:
    corpus = Corpus(corpus_folder)
    assert corpus.split(name) is corpus.splits[name]
    del corpus.splits[name]
    with pytest.raises(ConfigError) as error:
        corpus.split(name)
    assert_one_line(error, str(corpus_folder), f"no {told} documents")


@pytest.mark.parametrize("verify", ["use", "size"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "no such file"),
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-512]), "bytes"),
    ],
)
def test_a_missing_or_truncated_shard_is_named_when_it_is_read(
    copied: Path, damage: Callable[[Path], object], told: str, verify: str
) -> None:
    shard = first_shard(copied)
    damage(shard)
    corpus = Corpus(copied, ReadingConfig(verify=verify))  # type: ignore[arg-type]
    assert corpus.train.piece(int(corpus.train.shard_documents[1])).starts_document
    with pytest.raises(DamagedError) as error:
        corpus.train.piece(0)
    assert_one_line(error, shard.name, told)
    with pytest.raises(DamagedError) as error:
        _ = corpus.train.labels
    assert_one_line(error, shard.name, told)


@pytest.mark.parametrize("member", ["tokens", "words", "documents", "labels"])
def test_a_damaged_block_that_was_not_checked_is_told_in_one_line(
    copied: Path, make_stream: Callable[..., WindowStream], member: str
) -> None:
    """With `verify: size` damage shows when the block is read, in the middle of a run."""
    shard = first_shard(copied)
    header = shard.read_bytes().find(f".{member}.npy".encode())
    overwrite(shard, header - header % 512 + 512, b"damaged!")
    corpus = Corpus(copied, ReadingConfig(verify="size"))
    with pytest.raises(DamagedError) as error:
        corpus.train.piece(0)
    assert_one_line(error, shard.name, member)
    stream = make_stream(corpus=corpus)
    with pytest.raises(DamagedError) as error:
        stream.windows(range(stream.count))
    assert_one_line(error, shard.name, member)


def test_a_document_of_a_shard_that_is_left_out_is_refused(corpus_folder: Path) -> None:
    corpus = Corpus(corpus_folder)
    corpus.train.store.skip({1: "shard 1 is damaged"})
    first, last = corpus.train.shard_documents[1:3].tolist()
    with pytest.raises(DamagedError, match=r"^shard 1 is damaged$"):
        corpus.train.piece(first)
    assert set(corpus.train.labels[first:last].tolist()) == {-1}
    assert set(corpus.train.labels[last:].tolist()) == {0, 1}


def test_a_folder_without_a_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Corpus(tmp_path / "none")
    assert_one_line(error, "none", "megapt-prep build")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", DamagedError),
        (b"{", DamagedError),
        (b"\xff\xfe", DamagedError),
        (b"[]", ConfigError),
        (b'{"format": "other/9"}', ConfigError),
    ],
)
def test_a_broken_manifest_is_told_in_one_line(
    copied: Path, content: bytes, kind: type[MegaptError]
) -> None:
    (copied / "manifest.json").write_bytes(content)
    with pytest.raises(kind) as error:
        Corpus(copied)
    assert_one_line(error, "manifest.json")


def test_an_edited_manifest_is_refused(copied: Path) -> None:
    manifest = copied / "manifest.json"
    values = json.loads(manifest.read_text())
    values["labels"].reverse()
    manifest.write_text(json.dumps(values))
    with pytest.raises(DamagedError) as error:
        Corpus(copied)
    assert_one_line(error, "fingerprint")


@pytest.mark.parametrize("file", ["train.index.npy", "valid.lengths.npy"])
@pytest.mark.parametrize("content", [None, b"", b"other"])
def test_a_missing_or_broken_index_is_told_in_one_line(
    copied: Path, file: str, content: bytes | None
) -> None:
    if content is None:
        (copied / file).unlink()
    elif content:
        overwrite(copied / file, 0, content)
    else:
        (copied / file).write_bytes(content)
    with pytest.raises(DamagedError) as error:
        Corpus(copied)
    assert_one_line(error, file)


def test_an_index_that_cannot_be_opened_is_told_in_one_line(
    corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path, **_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(file))

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    with pytest.raises(ConfigError) as error:
        Corpus(corpus_folder)
    assert_one_line(error, ".lengths.npy: Too many open files", "ulimit -n")


def test_another_tokenizer_is_refused(copied: Path) -> None:
    model = copied / "tokenizer.model"
    last = model.stat().st_size - 1
    overwrite(model, last, bytes([model.read_bytes()[-1] ^ 1]))
    with pytest.raises(DamagedError) as error:
        Corpus(copied).tokenizer()
    assert_one_line(error, "tokenizer.model")


def test_a_missing_tokenizer_is_named(copied: Path) -> None:
    (copied / "tokenizer.model").unlink()
    with pytest.raises(DamagedError) as error:
        Corpus(copied).tokenizer()
    assert_one_line(error, "tokenizer.model", "no such file")
