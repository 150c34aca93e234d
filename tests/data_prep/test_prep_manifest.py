import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import PrepError
from data_prep.manifest import FileInfo, Manifest, ShardInfo, SplitInfo
from data_prep.vocabulary import Vocabulary


@pytest.fixture
def manifest() -> Manifest:
    ids = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "cls": 4, "sep": 5, "mask": 6}
    vocabulary = Vocabulary(
        size=9, **ids, modes={"NLU": 7}, infilling={}, sentinels=[8], reserved=list(range(9))
    )
    shard = ShardInfo(
        file="train-000000.tar",
        sha256="0" * 64,
        bytes=10240,
        documents=2,
        tokens=7,
        blocks=1,
    )
    split = SplitInfo(
        documents=2,
        tokens=7,
        text_bytes=20,
        labelled=1,
        label_counts=[1],
        corpus_counts=[2],
        index=FileInfo(file="train.index.npy", bytes=152, sha256="2" * 64),
        lengths=FileInfo(file="train.lengths.npy", bytes=136, sha256="3" * 64),
        shards=[shard],
    )
    return Manifest.create(
        vocabulary=vocabulary,
        tokenizer=FileInfo(file="tokenizer.model", bytes=9, sha256="1" * 64),
        labels=["好"],
        corpora=[],
        keeps_ids=False,
        splits={"train": split},
        rejected={"empty": 1},
        changed={"whitespace": 2},
        settings={"seed": 0, "valid_fraction": 0.1, "label_field": None},
        source_documents=3,
    )


def edit(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_saved_manifest_loads_equal(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_files_of_a_corpus_are_named(manifest: Manifest) -> None:
    assert manifest.files == {
        "manifest.json",
        "tokenizer.model",
        "train.index.npy",
        "train.lengths.npy",
        "train-000000.tar",
    }


def test_fingerprint_covers_every_field(manifest: Manifest) -> None:
    changed = manifest.model_copy(update={"source_documents": 4})
    assert changed.computed_fingerprint() != manifest.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_documents": 4}, "edited or damaged"),
        ({"format": "megapt-shards/2"}, "'megapt-shards/2', this version reads 'megapt-shards/3'"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"splits": {"train": {}}}, "splits.train.documents: Field required"),
    ],
)
def test_changed_manifest_is_refused(
    manifest: Manifest, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    manifest.save(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(PrepError, match=message) as error:
        Manifest.load(tmp_path)
    assert "\n" not in str(error.value)


def test_manifest_from_elsewhere_is_named_as_its_reader_says(manifest: Manifest) -> None:
    where, data = "s3://bucket/corpus/manifest.json", manifest.to_bytes()
    assert Manifest.parse(data, where) == manifest
    for wrong, message in (
        (data[:-9], "not JSON"),
        (data.replace(b"empty", b"blank"), "was edited"),
    ):
        with pytest.raises(PrepError, match=message) as error:
            Manifest.parse(wrong, where)
        assert str(error.value).startswith(f"{where}: ")


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrepError, match=r"manifest\.json: no such file"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_manifest_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(PrepError, match="not JSON"):
        Manifest.load(tmp_path)


def test_manifest_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(PrepError, match="format is None"):
        Manifest.load(tmp_path)
