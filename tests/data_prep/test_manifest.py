import hashlib
import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import PrepError
from data_prep.manifest import FileInfo, Manifest, ShardInfo, SplitInfo
from data_prep.vocabulary import Vocabulary


def make_shard(number: int) -> ShardInfo:
    return ShardInfo(
        file=f"train-{number:06d}.tar",
        sha256=f"{number:064x}",
        bytes=10240 + number,
        documents=2 + number,
        tokens=7 + number,
        blocks=1 + number,
    )


def make_manifest(shards: list[ShardInfo], **changes: Any) -> Manifest:
    ids = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "cls": 4, "sep": 5, "mask": 6}
    vocabulary = Vocabulary(
        size=9, **ids, modes={"NLU": 7}, infilling={}, sentinels=[8], reserved=list(range(9))
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
        shards=shards,
    )
    fields = {
        "vocabulary": vocabulary,
        "tokenizer": FileInfo(file="tokenizer.model", bytes=9, sha256="1" * 64),
        "labels": ["好"],
        "corpora": [],
        "keeps_ids": False,
        "splits": {"train": split},
        "rejected": {"empty": 1},
        "changed": {"whitespace": 2},
        "settings": {"seed": 0, "valid_fraction": 0.1, "label_field": None},
        "source_documents": 3,
    }
    return Manifest.create(**{**fields, **changes})


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest([make_shard(0)])


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


def test_fingerprint_is_what_it_always_was(manifest: Manifest) -> None:
    before = "b1b7067683bd3e782365838ad2e4418565396184e2cb351b2d380ad61670fd0e"
    assert manifest.fingerprint == before


@given(count=st.integers(0, 8), at_once=st.integers(1, 4), name=st.text())
def test_fingerprint_is_that_of_the_canonical_json(count: int, at_once: int, name: str) -> None:
    manifest = make_manifest([make_shard(number) for number in range(count)], settings={name: [1]})
    content = manifest.model_dump(mode="json", exclude={"fingerprint"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    with patch("data_prep.manifest._SHARDS_AT_ONCE", at_once):
        found = manifest.computed_fingerprint()
    assert found == hashlib.sha256(canonical.encode()).hexdigest()


def test_many_shards_take_little_memory() -> None:
    count = 20_000
    data = make_manifest([make_shard(number) for number in range(count)]).to_bytes()
    tracemalloc.start()
    try:
        manifest = Manifest.parse(data, "manifest.json")
        lasting, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(manifest.splits["train"].shards) == count
    assert lasting < 600 * count
    assert peak < 900 * count


def test_fingerprint_covers_every_field(manifest: Manifest) -> None:
    changed = manifest.model_copy(update={"source_documents": 4})
    assert changed.computed_fingerprint() != manifest.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_documents": 4}, "edited or damaged"),
        ({"format": "megapt-shards/2"}, "'megapt-shards/2', this version reads 'megapt-shards/3'"),
        ({"color": "red"}, "color: Extra inputs"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": "many"}, "tokens: Input should be a valid integer"),
        ({"file": 1}, "file: Input should be a valid string"),
        ({"color": "red"}, "color: Unexpected keyword"),
    ],
)
def test_wrong_shard_is_named(manifest: Manifest, change: dict[str, Any], message: str) -> None:
    fields = json.loads(manifest.to_bytes())
    fields["splits"]["train"]["shards"].append({**asdict(make_shard(1)), **change})
    with pytest.raises(PrepError, match=rf"^here: splits\.train\.shards\.1\.{message}") as error:
        Manifest.parse(json.dumps(fields).encode(), "here")
    assert "\n" not in str(error.value)


def test_shard_without_a_field_is_named(manifest: Manifest) -> None:
    data = manifest.to_bytes().replace(b', "blocks": 1', b"")
    with pytest.raises(PrepError, match=r"splits\.train\.shards\.0\.blocks: Field required"):
        Manifest.parse(data, "here")


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
