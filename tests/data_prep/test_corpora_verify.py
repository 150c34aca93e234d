"""Every kind of damage is planted in a corpus, and each must be found."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_corpora import edit_manifest, make_corpus, make_texts, run, tokenizer_model
from prep_support import files_of

from data_prep.blocks import BlockData
from data_prep.corpora.faults import Verdict
from data_prep.corpora.verifying import shared_numbers, verify_corpus
from data_prep.execution import Executor, LocalExecutor
from data_prep.manifest import FileInfo, Manifest

SHARD = "train-000001.tar"
FLIPS = 60


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with LocalExecutor(1, 60.0) as opened:
        yield opened


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "corpus"
    make_corpus(folder, make_texts(60, corpus="web"), corpora=["web", "书"])
    return folder


@pytest.fixture
def corpus(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "corpus"))


def faults(verdict: Verdict) -> str:
    return "\n".join(map(str, verdict.faults))


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def reseal(folder: Path, file: str) -> None:
    """Make the manifest right about the size and the checksum of a changed file."""
    manifest = Manifest.load(folder)
    data = (folder / file).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()

    def sealed(info: FileInfo) -> FileInfo:
        return replace(info, bytes=len(data), sha256=sha256) if info.file == file else info

    splits = {
        name: split.model_copy(
            update={
                "index": sealed(split.index),
                "lengths": sealed(split.lengths),
                "shards": list(map(sealed, split.shards)),
            }
        )
        for name, split in manifest.splits.items()
    }
    edit_manifest(folder, splits=splits, tokenizer=sealed(manifest.tokenizer))


def test_sound_corpora(
    original: Path, executor: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_corpus(tmp_path / "bare", make_texts(30, label=None), ids=False, block_tokens=7)
    make_corpus(tmp_path / "one", make_texts(30, split="train"), block_tokens=10**6)
    for folder in (original, tmp_path / "bare", tmp_path / "one"):
        verdict = verify_corpus(folder, executor, text=True)
        assert (verdict.faults, verdict.notes) == ([], [])
    done = run(capfd, "verify", original, tmp_path / "bare", "--workers", 1)
    assert (done.code, done.err) == (0, "")
    assert done.out.count(": sound, ") == 2


@settings(max_examples=FLIPS, deadline=None)
@given(choice=st.data())
def test_flipped_bit_anywhere(
    original: Path,
    executor: Executor,
    tmp_path_factory: pytest.TempPathFactory,
    choice: st.DataObject,
) -> None:
    folder = original.with_name("flipped")
    shutil.copytree(original, folder, dirs_exist_ok=True)
    file = choice.draw(st.sampled_from(sorted({*files_of(folder)} - {"build.json"})))
    place = choice.draw(st.integers(0, (folder / file).stat().st_size - 1))
    flip(folder / file, place, choice.draw(st.integers(0, 7)))
    found = verify_corpus(folder, executor).faults
    assert file in {fault.file for fault in found}


def test_flipped_bit_is_found_by_structure_too(corpus: Path, executor: Executor) -> None:
    """Where the checksum is made right again, headers, padding and trailer still tell."""
    path = corpus / SHARD
    clean = path.read_bytes()
    size = len(clean)
    table = np.load(corpus / "train.index.npy")
    first = Manifest.load(corpus).splits["train"].shards[0].blocks
    block = int(table[first + 1, 0])  # of the second block of the shard
    places = {
        "tar header": block + 5,
        "header of numbers": block + 512 + 20,
        "padding": block + 1023,
        "trailer": size - 1,
        "end of the blocks": size - 600,
    }
    for what, place in places.items():
        path.write_bytes(clean)
        flip(path, place)
        reseal(corpus, SHARD)
        found = verify_corpus(corpus, executor).faults
        assert found, what
        assert {fault.file for fault in found} == {SHARD}
        if place < size - 1000:
            assert {fault.block for fault in found} == {first + 1}, what


def test_missing_files(corpus: Path, executor: Executor) -> None:
    missing = [SHARD, "valid.index.npy", "train.lengths.npy", "tokenizer.model"]
    for file in missing:
        (corpus / file).unlink()
    found = verify_corpus(corpus, executor, text=True).faults
    assert sorted(fault.file for fault in found) == sorted(missing)
    assert all("no such file" in fault.what for fault in found)


def test_shard_of_another_corpus(corpus: Path, executor: Executor, tmp_path: Path) -> None:
    make_corpus(tmp_path / "other", make_texts(60, 5, corpus="web"), corpora=["web", "书"])
    shutil.copy(tmp_path / "other" / SHARD, corpus / SHARD)
    verdict = verify_corpus(corpus, executor)
    assert {fault.file for fault in verdict.faults} == {SHARD}
    assert "sha256 is" in faults(verdict)


def test_swapped_shards(corpus: Path, executor: Executor) -> None:
    for one, other in ((SHARD, "x"), ("train-000000.tar", SHARD), ("x", "train-000000.tar")):
        (corpus / one).rename(corpus / other)
    verdict = verify_corpus(corpus, executor)
    assert {fault.file for fault in verdict.faults} == {SHARD, "train-000000.tar"}
    assert "(that of train-000000.tar)" in faults(verdict)


def test_swapped_index_and_tokenizer(corpus: Path, executor: Executor) -> None:
    shutil.copy(corpus / "train.index.npy", corpus / "valid.index.npy")
    (corpus / "tokenizer.model").write_bytes(tokenizer_model(1))
    files = {fault.file for fault in verify_corpus(corpus, executor).faults}
    assert files == {"valid.index.npy", "tokenizer.model"}
    for file in files:
        reseal(corpus, file)
    verdict = verify_corpus(corpus, executor)
    assert "not the index that the manifest describes" in faults(verdict)


def test_swapped_lengths(corpus: Path, executor: Executor) -> None:
    names = ("train.lengths.npy", "valid.lengths.npy")
    contents = [(corpus / name).read_bytes() for name in names]
    for name, data in zip(names, reversed(contents), strict=True):
        (corpus / name).write_bytes(data)
    assert {fault.file for fault in verify_corpus(corpus, executor).faults} == set(names)
    for name in names:
        reseal(corpus, name)
    found = verify_corpus(corpus, executor).faults
    assert {fault.file for fault in found} == set(names)
    assert all("not the lengths that the manifest describes" in fault.what for fault in found)


def test_damaged_lengths(corpus: Path, executor: Executor) -> None:
    path = corpus / "train.lengths.npy"
    clean = path.read_bytes()
    for wrong in (clean[:-4], clean + bytes(4), b"", clean.replace(b"<u4", b"<i4"), clean[::-1]):
        path.write_bytes(wrong)
        assert {fault.file for fault in verify_corpus(corpus, executor).faults} == {path.name}
        reseal(corpus, path.name)
        assert faults(verify_corpus(corpus, executor)) == (
            f"{path.name}: not the lengths that the manifest describes: the file was changed or "
            "damaged; build the corpus again or copy it again"
        )
        path.write_bytes(clean)
        reseal(corpus, path.name)
    assert not verify_corpus(corpus, executor).faults


def test_lengths_that_are_not_those_of_the_shards(corpus: Path, executor: Executor) -> None:
    """Every checksum is right, and so is the sum of all lengths."""
    path = corpus / "train.lengths.npy"
    lengths = np.load(path)
    first = Manifest.load(corpus).splits["train"].shards[0]
    lengths[first.documents] += 1  # the first document of the second shard
    lengths[first.documents - 1] -= 1  # the last of the first
    np.save(path, lengths)
    reseal(corpus, path.name)
    assert faults(verify_corpus(corpus, executor)) == (
        f"train-000000.tar: block {first.blocks - 1}: its lens are not those in {path.name}\n"
        f"{SHARD}: block {first.blocks}: its lens are not those in {path.name}"
    )


@pytest.mark.parametrize("left", [0, 1, 300, 512, 3000, 4096, -10240, -1])
def test_truncated_tar(corpus: Path, executor: Executor, left: int) -> None:
    path = corpus / SHARD
    path.write_bytes(path.read_bytes()[:left])
    verdict = verify_corpus(corpus, executor)
    assert {fault.file for fault in verdict.faults} == {SHARD}
    assert "bytes long, the manifest says" in faults(verdict)


def test_bytes_after_the_end(corpus: Path, executor: Executor) -> None:
    with open(corpus / SHARD, "ab") as file:
        file.write(b"more")
    reseal(corpus, SHARD)
    assert "non-zero bytes follow the last member" in faults(verify_corpus(corpus, executor))


def test_edited_manifest(corpus: Path, executor: Executor) -> None:
    path = corpus / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"empty"', '"blank"'))
    assert "does not match its fingerprint" in faults(verify_corpus(corpus, executor))
    path.write_text(text.replace('{\n "format"', '{\n\n "format"'))
    assert "not byte for byte" in faults(verify_corpus(corpus, executor))
    for broken in (text[:-10], "{}", text.replace("source_documents", "documents"), "[1]"):
        path.write_text(broken)
        verdict = verify_corpus(corpus, executor)
        assert [fault.file for fault in verdict.faults] == ["manifest.json"]


COUNTS: list[tuple[str, Callable[[Manifest], dict[str, object]], str]] = [
    ("text", lambda m: {"text_bytes": m.splits["train"].text_bytes + 1}, "text_bytes is"),
    ("documents", lambda m: {"documents": 1}, "train: documents add up to"),
    ("tokens", lambda m: {"tokens": 1}, "train: tokens add up to"),
    ("labelled", lambda m: {"labelled": 1}, "train: labelled add up to"),
    ("labels", lambda m: {"label_counts": m.splits["train"].label_counts[::-1]}, "label_counts is"),
    ("corpora", lambda m: {"corpus_counts": [0, 0]}, "train: corpus_counts add up to 0"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in COUNTS])
def test_wrong_counts(
    corpus: Path,
    executor: Executor,
    change: Callable[[Manifest], dict[str, object]],
    message: str,
) -> None:
    manifest = Manifest.load(corpus)
    splits = dict(manifest.splits)
    splits["train"] = splits["train"].model_copy(update=change(manifest))
    edit_manifest(corpus, splits=splits)
    assert message in faults(verify_corpus(corpus, executor))


def test_wrong_totals_of_the_manifest(corpus: Path, executor: Executor) -> None:
    edit_manifest(corpus, rejected={"empty": 1})
    assert "are not the 59 of the input" in faults(verify_corpus(corpus, executor))
    edit_manifest(corpus, keeps_ids=False)
    assert "the tar header there is not that" in faults(verify_corpus(corpus, executor))


def changed(name: str, place: int, value: object) -> Callable[[BlockData], BlockData]:
    """Set one value of an array of the block that holds document 25."""

    def change(block: BlockData) -> BlockData:
        if 25 not in block.documents.tolist():
            return block
        array = getattr(block, name).copy()
        array[place] = value
        return replace(block, **{name: array})

    return change


CONTENTS = [
    (changed("tokens", 1, 420), "is not below 420"),
    (changed("tokens", 2, 5), "holds a reserved token"),
    (changed("words", 0, False), "a sentence starts where no word starts"),
    (changed("sentences", 0, False), "is not in sentences"),
    (changed("documents", 0, 1), "document numbers do not increase"),
    (changed("documents", -1, 1000), "document numbers are not all in 0 to 58"),
    (changed("labels", 0, 2), "is not in -1 to 1"),
    (changed("labels", 0, -2), "is not in -1 to 1"),
    (changed("corpora", 0, 2), "is not in 0 to 1"),
    (changed("bytes", 0, 0), "has no byte of text"),
]


@pytest.mark.parametrize(("change", "message"), CONTENTS, ids=[m for _, m in CONTENTS])
def test_content_that_makes_no_sense(
    tmp_path: Path, executor: Executor, change: Callable[[BlockData], BlockData], message: str
) -> None:
    texts = make_texts(60, corpus="web")
    make_corpus(tmp_path / "a", texts, corpora=["web", "书"], block_tokens=120, change=change)
    assert message in faults(verify_corpus(tmp_path / "a", executor))


def test_document_on_two_sides(tmp_path: Path, executor: Executor) -> None:
    texts = make_texts(40)
    twice = [replace(one, split="valid") for one in texts if one.number in (8, 30)]
    both = sorted([*texts, *twice], key=lambda one: one.number)
    make_corpus(tmp_path / "a", both, rejected={"empty": 40 - len(both)})
    found = faults(verify_corpus(tmp_path / "a", executor))
    assert found == "\n".join(
        f"manifest.json: document {number} is in train and in valid" for number in (8, 30)
    )


def test_text_of_another_length(tmp_path: Path, executor: Executor) -> None:
    texts = make_texts(40)
    texts[3] = replace(texts[3], text="a \u2581 b")  # comes back as spaces, and that is known
    make_corpus(tmp_path / "a", texts, change=changed("bytes", 0, 5))
    assert not verify_corpus(tmp_path / "a", executor).faults
    found = verify_corpus(tmp_path / "a", executor, text=True).faults
    assert len(found) == 1
    assert "bytes of text, 5 are recorded" in found[0].what


def test_record_of_the_build(corpus: Path, executor: Executor) -> None:
    path = corpus / "build.json"
    fingerprint = Manifest.load(corpus).fingerprint
    path.write_text(path.read_text().replace(fingerprint, fingerprint[::-1]))
    assert faults(verify_corpus(corpus, executor)) == "build.json: is the record of another corpus"
    path.write_text("{")
    assert "cannot be read" in faults(verify_corpus(corpus, executor))
    path.unlink()
    verdict = verify_corpus(corpus, executor)
    assert not verdict.faults
    assert len(verdict.notes) == 1


def test_unknown_file_is_a_note(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (corpus / "train-000099.tar").write_bytes(b"")
    done = run(capfd, "verify", corpus, "--workers", 1)
    assert done.code == 0
    assert "note: train-000099.tar: not a file of this corpus" in done.out


def test_all_faults_are_told(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (corpus / SHARD).unlink()
    flip(corpus / "train-000000.tar", 700)
    flip(corpus / "tokenizer.model", 700)
    done = run(capfd, "verify", corpus, corpus.parent / "corpus", "--json", "--workers", 2)
    assert done.code == 1
    told = json.loads(done.out.splitlines()[0])
    assert not told["sound"]
    files = {fault["file"] for fault in told["faults"]}
    assert files == {SHARD, "train-000000.tar", "tokenizer.model"}
    done = run(capfd, "verify", corpus, "--workers", 1)
    assert done.code == 1
    assert len(done.out.splitlines()) == len(told["faults"]) + 1


def test_folder_that_is_no_corpus(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = run(capfd, "verify", tmp_path)
    assert done.code == 2
    assert "manifest.json: no such file" in done.err


@given(*[st.lists(st.integers(0, 30), unique=True).map(sorted)] * 2, st.integers(1, 5))
def test_shared_numbers(one: list[int], other: list[int], size: int) -> None:
    parts = [
        [np.array(side[start : start + size]) for start in range(0, len(side), size)]
        for side in (one, other)
    ]
    assert list(shared_numbers(*parts, most=99)) == sorted(set(one) & set(other))
    assert list(shared_numbers(*parts, most=2)) == sorted(set(one) & set(other))[:2]
