import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
from prep_support import (
    Prep,
    all_texts,
    build,
    files_of,
    make_documents,
    read_split,
    read_texts,
    write_jsonl,
)

from data_prep.errors import PrepError
from data_prep.manifest import Manifest
from data_prep.shards import open_shards
from data_prep.tokenizers import Tokenizer
from data_prep.tokenizers.base import reserved_pieces


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_path: Path
) -> Path:
    output = tmp_path_factory.mktemp("built") / "corpus"
    build([corpus_file], tokenizer_path, output, unit_bytes=20_000)
    return output


@pytest.mark.parametrize(
    ("workers", "unit_bytes"), [(1, 1 << 20), (1, 700), (2, 20_000), (3, 9000)]
)
def test_bytes_do_not_depend_on_workers_or_units(
    corpus: Path,
    corpus_file: Path,
    tokenizer_path: Path,
    tmp_path: Path,
    workers: int,
    unit_bytes: int,
) -> None:
    output = tmp_path / "corpus"
    build([corpus_file], tokenizer_path, output, workers=workers, unit_bytes=unit_bytes)
    assert files_of(output) == files_of(corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_every_document_is_there_once_in_order(
    corpus: Path, documents: list[dict[str, Any]], tokenizer: Tokenizer
) -> None:
    train = read_texts(corpus, "train")
    valid = read_texts(corpus, "valid")
    assert list(train) == sorted(train)
    assert list(valid) == sorted(valid)
    assert train | valid == {number: item["text"] for number, item in enumerate(documents)}


def test_manifest_counts_what_is_there(
    corpus: Path, documents: list[dict[str, Any]], tokenizer: Tokenizer
) -> None:
    manifest = Manifest.load(corpus)
    assert manifest.source_documents == len(documents)
    assert (manifest.rejected, manifest.changed) == ({}, {})
    assert manifest.vocabulary == tokenizer.vocabulary
    assert manifest.tokenizer.sha256 == tokenizer.sha256
    assert (corpus / "tokenizer.model").read_bytes() == tokenizer.data
    assert manifest.labels == ["chinese", "english"]
    for name, split in manifest.splits.items():
        texts = read_texts(corpus, name)
        blocks = read_split(corpus, name)
        assert split.documents == len(texts)
        assert split.tokens == sum(len(block.tokens) for block in blocks)
        assert split.text_bytes == sum(len(text.encode()) for text in texts.values())
        found = Counter(documents[number]["label"] for number in texts)
        assert split.label_counts == [found["chinese"], found["english"]]
        labels = np.concatenate([block.labels for block in blocks])
        assert labels.tolist() == [
            manifest.labels.index(documents[number]["label"]) for number in texts
        ]
        for shard in open_shards(corpus, split):
            shard.verify()
    assert len(manifest.splits["train"].shards) > 1


def test_block_keys_run_through_the_split(corpus: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    files = [str(corpus / info.file) for info in Manifest.load(corpus).splits["train"].shards]
    keys = [sample["__key__"] for sample in webdataset.WebDataset(files, shardshuffle=False)]
    assert keys == [f"{number:08d}" for number in range(len(keys))]


def test_groups_and_copies_stay_on_one_side(
    tokenizer_path: Path, tokenizer: Tokenizer, tmp_path: Path, documents: list[dict[str, Any]]
) -> None:
    source = write_jsonl(tmp_path / "twice.jsonl", documents + documents)
    build([source], tokenizer_path, tmp_path / "texts")
    train = set(read_texts(tmp_path / "texts", "train").values())
    assert not train & set(read_texts(tmp_path / "texts", "valid").values())
    build([source], tokenizer_path, tmp_path / "groups", group_field="group")
    sides = [
        {(documents + documents)[number]["group"] for number in read_texts(folder, name)}
        for folder in [tmp_path / "groups"]
        for name in ("train", "valid")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_labels_are_partly_missing_and_numbers_sorted_by_value(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    records = [{"text": f"the river {n}", "label": (10, 9, None)[n % 3]} for n in range(60)]
    source = write_jsonl(tmp_path / "numbers.jsonl", records)
    manifest = build([source], tokenizer_path, tmp_path / "out")
    assert manifest.labels == ["9", "10"]
    splits = manifest.splits.values()
    assert sum(split.labelled for split in splits) == 40
    assert [sum(split.label_counts[i] for split in splits) for i in range(2)] == [20, 20]


def test_huge_document_stays_one_document(
    tokenizer_path: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    text = "the river under the old window\n我们去北京。" * 60_000
    source = write_jsonl(tmp_path / "huge.jsonl", [*make_documents(60), {"text": text}])
    build([source], tokenizer_path, tmp_path / "out", unit_bytes=100_000)
    assert all_texts(tmp_path / "out")[60] == text


@pytest.mark.parametrize(("split_text", "count"), [("file", 40), ("paragraph", 80), ("line", 120)])
def test_text_files(
    tokenizer_path: Path, tokenizer: Tokenizer, tmp_path: Path, split_text: Any, count: int
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(f"the {number}\nriver {number}\n\n我们{number}\n")
    manifest = build(
        [folder], tokenizer_path, tmp_path / "out", unit_bytes=90, split_text=split_text
    )
    assert manifest.source_documents == count
    assert manifest.labels == []
    texts = all_texts(tmp_path / "out")
    expected = {"file": "the 0\nriver 0\n\n我们0\n", "paragraph": "the 0\nriver 0", "line": "the 0"}
    assert texts[0] == expected[split_text]


def test_tokenizer_that_normalises_text(corpus_file: Path, tmp_path: Path) -> None:
    first, *controls = reserved_pieces(1)
    spm.SentencePieceTrainer.train(
        input=str(corpus_file),
        model_prefix=str(tmp_path / "nfkc"),
        vocab_size=400,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece=first,
        unk_piece=controls[0],
        bos_piece=controls[1],
        eos_piece=controls[2],
        control_symbols=controls[3:],
        minloglevel=2,
    )
    texts = ["\u200b", "the  river.   Under\n\nit.  The end", *(f"river {n}" for n in range(40))]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    output = tmp_path / "out"
    manifest = build([source], tmp_path / "nfkc.model", output)
    assert manifest.rejected == {"empty": 1}, "a text of which the tokenizer leaves nothing"
    assert all_texts(output)[1] == "the river. Under it. The end"
    blocks = [*read_split(output, "train"), *read_split(output, "valid")]
    [block] = [one for one in blocks if 1 in one.documents]
    place = block.documents.tolist().index(1)
    start = int(block.lens[:place].sum())
    assert block.sentences[start : start + int(block.lens[place])].sum() == 3


def test_bad_documents_are_skipped_and_counted(tokenizer_path: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"the river {number}"}).encode() for number in range(60)]
    lines[3:3] = [b"{", b'{"text": 5}', b'{"text": "\xff"}', b'{"text": ""}', b"{}", b"", b"{}"]
    source = tmp_path / "bad.jsonl"
    source.write_bytes(b"\n".join(lines))
    manifest = build([source], tokenizer_path, tmp_path / "out", unit_bytes=50, errors="skip")
    assert manifest.rejected == {
        "empty": 1,
        "json": 1,
        "text_missing": 2,
        "text_type": 1,
        "utf8": 1,
    }
    kept = sum(split.documents for split in manifest.splits.values())
    assert manifest.source_documents == kept + sum(manifest.rejected.values()) == 66


def test_bad_utf8_is_replaced_and_counted(
    tokenizer_path: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": f"the river {number}"}).encode() for number in range(60)]
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join([b'{"text": "a\xffb"}', *lines]))
    manifest = build([tmp_path / "bad.jsonl"], tokenizer_path, tmp_path / "out", errors="replace")
    assert (manifest.rejected, manifest.changed) == ({}, {"utf8_replaced": 1})
    assert all_texts(tmp_path / "out")[0] == "a\ufffdb"


def test_finished_corpus_is_not_built_again(
    prep: Prep, corpus_file: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    base = ("build", "--input", corpus_file, "--tokenizer", tokenizer_path, "--output", output)
    base = (*base, "--valid-fraction", 0.1)
    first = prep(*base, "--workers", 1)
    assert (first.code, first.err) == (0, "")
    times = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    again = prep(*base, "--workers", 1)
    assert again.code == 0
    assert "already built" in again.out
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == times
    other = prep(*base, "--seed", 1, "--workers", 1)
    assert other.code == 2
    assert "seed = 0, not 1" in other.err
    replaced = prep(*base, "--seed", 1, "--workers", 1, "--overwrite", "--json")
    assert json.loads(replaced.out)["built"]
    assert Manifest.load(output).settings["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_changed_input_is_another_build(tokenizer_path: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_documents(80))
    build([source], tokenizer_path, tmp_path / "out")
    write_jsonl(source, make_documents(80, seed=1))
    with pytest.raises(PrepError, match=r"another build .other input files"):
        build([source], tokenizer_path, tmp_path / "out")


def test_ids_must_be_unique_in_their_corpus_only(
    prep: Prep, tokenizer_path: Path, tmp_path: Path
) -> None:
    records = [{"text": f"the river {n}", "id": n} for n in range(40)]
    one, two, three = (write_jsonl(tmp_path / f"{name}.jsonl", records) for name in "abc")
    config = tmp_path / "build.yaml"
    lines = [
        "corpora:",
        f"  河: {{paths: ['{one}'], id_field: id}}",
        f"  lake: {{paths: ['{two}'], id_field: id}}",
        f"  sea: {{paths: ['{three}']}}",
    ]
    config.write_text("\n".join(lines), encoding="utf-8")
    base = ("build", "--config", config, "--tokenizer", tokenizer_path, "--valid-fraction", 0.1)
    done = prep(*base, "--output", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.corpora == ["河", "lake", "sea"]
    assert (manifest.rejected, manifest.source_documents) == ({}, 120)
    write_jsonl(two, [*records, {"text": "again", "id": "7"}])
    done = prep(*base, "--output", tmp_path / "twice")
    assert done.code == 2
    assert "documents 47 and 80 of the input have the same id" in done.err
    assert prep(*base, "--output", tmp_path / "twice", "--errors", "skip").code == 0
    assert Manifest.load(tmp_path / "twice").rejected == {"duplicate_id": 1}
