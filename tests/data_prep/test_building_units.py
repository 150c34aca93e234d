"""Units of work: when a finished one is used again, and what their keys and shards take."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prep_poison import make_hanging_marker, make_poisoned_worker
from prep_support import (
    all_texts,
    build,
    command,
    environment,
    files_of,
    make_documents,
    write_jsonl,
)

from data_prep.assembly import Source, plan_shards
from data_prep.build import build_corpus
from data_prep.cleaning import Cleaned, Removed
from data_prep.dedup import DedupSettings, NearSettings
from data_prep.errors import PrepError
from data_prep.execution import Context, LocalExecutor
from data_prep.inputs import find_files, plan_units
from data_prep.manifest import Manifest
from data_prep.pipeline import keys
from data_prep.pipeline.keys import KeyWriter
from data_prep.pipeline.units import UnitTask, UnitWorker
from data_prep.settings import BuildSettings
from data_prep.shards import Shard, open_shards, read_lengths


class _StoppedError(Exception):
    pass


def stop(*_: object) -> None:
    raise _StoppedError


def build_units(sources: list[Path], tokenizer: Path, output: Path, **options: Any) -> None:
    """Build up to the search for duplicates, and leave the finished units behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.build.find_duplicates", stop)
        with pytest.raises(_StoppedError):
            build(sources, tokenizer, output, unit_bytes=3000, **options)


def test_units_of_a_renamed_file_are_not_taken_for_those_of_another_format(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out"
    rows = [f'"{record["text"]}"\tx,{record["id"]}' for record in make_documents(90)]
    source.write_text("\n".join(['"text"\tx,n', *rows]), encoding="utf-8")
    renamed = tmp_path / "in.tsv"
    others = [write_jsonl(tmp_path / f"{n}.jsonl", make_documents(30, n)) for n in range(3)]
    build_units([source, *others], tokenizer_path, output, errors="skip")
    source.rename(renamed)
    for path in (output, tmp_path / "fresh"):
        build([renamed, *others], tokenizer_path, path, unit_bytes=3000, errors="skip")
    assert files_of(output) == files_of(tmp_path / "fresh")


def test_a_unit_of_a_file_that_changed_is_not_kept(tokenizer_path: Path, tmp_path: Path) -> None:
    """It would be found under the key of the old content, if that came back."""
    source = write_jsonl(tmp_path / "in.jsonl", make_documents(30))
    settings = BuildSettings.of_files(source)
    (tmp_path / "units").mkdir()
    worker = UnitWorker(tokenizer_path, settings, tmp_path / "units")
    clean = worker.cleaner.clean

    def clean_and_touch(text: str) -> Cleaned | Removed:
        os.utime(source, ns=(0, 0))
        return clean(text)

    worker.cleaner.clean = clean_and_touch  # type: ignore[method-assign]
    (unit,) = plan_units(find_files(settings.corpora))
    with pytest.raises(PrepError, match=r"in\.jsonl: changed while it was read"):
        worker(UnitTask("key", unit), Context())
    assert not list((tmp_path / "units").iterdir())


def test_a_unit_with_a_poisonous_document_is_done_again(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    records = [*make_documents(60), {"text": "poison: raise 毒"}]
    source, output = write_jsonl(tmp_path / "in.jsonl", records), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.build.UnitWorker", make_poisoned_worker)
        build_units([source], tokenizer_path, output)
    build([source], tokenizer_path, output, unit_bytes=3000)
    assert Manifest.load(output).rejected == {}
    assert "poison: raise 毒" in all_texts(output).values()


def test_a_document_at_which_marking_hangs_is_found(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents are marked many at a time, under one time limit."""
    records = make_documents(40)
    records.insert(11, {"text": "poison: hang 毒"})
    source = write_jsonl(tmp_path / "in.jsonl", records)
    monkeypatch.setattr("data_prep.build.UnitWorker", make_hanging_marker)
    manifest = build([source], tokenizer_path, tmp_path / "out", record_seconds=1.0)
    assert manifest.rejected == {"poisonous": 1}
    examples = json.loads((tmp_path / "out" / "build.json").read_bytes())["examples"]
    assert examples["poisonous"] == [f"{source}:12 (took more than 1 s)"]


def test_a_corpus_without_ids_beside_one_with_them(tokenizer_path: Path, tmp_path: Path) -> None:
    records = make_documents(80)
    named = write_jsonl(tmp_path / "named.jsonl", records[:40])
    bare = write_jsonl(tmp_path / "bare.jsonl", [{"text": r["text"]} for r in records[40:]])
    corpora = {
        "named": {"paths": (str(named),), "id_field": "id"},
        "bare": {"paths": (str(bare),)},
    }
    settings = BuildSettings.model_validate({"corpora": corpora, "valid_fraction": 0.2})
    with LocalExecutor(1) as executor:
        manifest, _ = build_corpus(settings, tokenizer_path, tmp_path / "out", executor)
    assert manifest.rejected == {}
    assert len(all_texts(tmp_path / "out")) == 80


def test_key_segments_are_bounded_however_few_documents_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SEGMENT_DOCUMENTS", 10)
    settings = BuildSettings.of_files(
        "x", id_field="id", deduplicate=DedupSettings(near=NearSettings())
    )
    writer = KeyWriter(tmp_path, settings)
    numbers = np.array([3, 4, 12, 13, 500_000_000, 10**12], dtype=np.int64)
    texts = [f"the river {number} 我们" for number in numbers]
    writer.add(numbers[:3], texts[:3], ["a", "b", None])
    writer.add(numbers[3:], texts[3:], ["c", None, "d"])
    segments = writer.close()
    assert [segment.first for segment in segments] == [3, 13, 500_000_000, 10**12]
    found: dict[str, list[int]] = {"texts": [], "ids": []}
    for segment in segments:
        rows = np.load(tmp_path / segment.tables["signatures"].file)
        assert len(rows) <= 10
        for kind, known in found.items():
            if kind in segment.tables:
                table = np.load(tmp_path / segment.tables[kind].file, mmap_mode="r")
                known += sorted((table["document"].astype(np.int64) + segment.first).tolist())
    assert found == {"texts": numbers.tolist(), "ids": [3, 4, 13, 10**12]}


def test_planning_holds_no_shard_open(
    corpus_file: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """A large corpus has more units than a process may have files open."""
    manifest = build([corpus_file], tokenizer_path, tmp_path / "out")
    shards: list[Shard] = open_shards(tmp_path / "out", manifest.splits["train"])
    assert len(shards) > 3
    labels = np.arange(-1, 1, dtype=np.int32)
    sources = [Source(shard, 0, labels, np.zeros(1, dtype=np.uint16)) for shard in shards]
    before = len(os.listdir("/proc/self/fd"))
    dropped = shards[0].documents(0)[:1].copy()
    shards[0].close()
    lengths: list[int] = []
    assert list(plan_shards("train", sources, dropped, 100, 1000, lengths.extend))
    assert len(os.listdir("/proc/self/fd")) == before
    assert lengths == read_lengths(tmp_path / "out", manifest.splits["train"])[1:].tolist()


def test_a_locale_that_cannot_spell_the_labels(tokenizer_path: Path, tmp_path: Path) -> None:
    records = [{**one, "label": ("英文", "中文")[one["id"] % 2]} for one in make_documents(60)]
    source, output = write_jsonl(tmp_path / "in.jsonl", records), tmp_path / "out"
    line = command("build", "--input", source, "--tokenizer", tokenizer_path, "--output", output)
    done = subprocess.run(
        [*line, "--valid-fraction", "0.2"],
        env={**environment(), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Manifest.load(output).labels == ["中文", "英文"]


def test_an_output_in_an_input_folder_is_refused(tokenizer_path: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", make_documents(30))
    with pytest.raises(PrepError, match="out: lies in the input folder"):
        build([tmp_path / "in"], tokenizer_path, tmp_path / "in" / "corpora" / "out")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.jsonl"]


def test_a_corpus_that_a_killed_build_had_moved_away_is_not_replaced_unasked(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", make_documents(60)), tmp_path / "out"
    build([source], tokenizer_path, output)
    before = files_of(output)
    (tmp_path / "out.partial").mkdir()
    output.rename(tmp_path / "out.partial" / "replaced")
    with pytest.raises(PrepError, match=r"out: holds a corpus of another build \(seed"):
        build([source], tokenizer_path, output, seed=1)
    assert files_of(output) == before
    assert not (tmp_path / "out.partial").exists()
