"""The same bytes, whatever executor, number of workers, units and kills."""

import subprocess
from pathlib import Path

import pytest
from prep_everything import everything_command, write_everything
from prep_execution import mpirun
from prep_support import assert_lengths, environment, files_of, read_split

from data_prep.build import build_corpus
from data_prep.config_file import ConfigFile
from data_prep.execution import LocalExecutor
from data_prep.manifest import Manifest
from data_prep.settings import BuildConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_everything(tmp_path_factory.mktemp("everything"), 400)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, config: Path, tokenizer_path: Path) -> Path:
    output = tmp_path_factory.mktemp("reference") / "out"
    line = everything_command(config, tokenizer_path, output, "--workers", 1)
    subprocess.run(line, env=environment(), check=True)
    return output


def test_every_step_did_something(reference: Path) -> None:
    manifest = Manifest.load(reference)
    for reason in ("duplicate", "near_duplicate", "duplicate_id", "text_type"):
        assert manifest.rejected[reason] > 0, reason
    assert manifest.changed["personal_data.email"] == 1
    assert manifest.corpora == ["web", "books"]
    splits = manifest.splits.values()
    kept = sum(split.documents for split in splits)
    assert manifest.source_documents == kept + sum(manifest.rejected.values())
    for name, split in manifest.splits.items():
        blocks = read_split(reference, name)
        assert sum(len(block) for block in blocks) == split.documents
        counts = [sum(int((block.corpora == n).sum()) for block in blocks) for n in range(2)]
        assert counts == split.corpus_counts
        ids = [id_ for block in blocks for id_ in block.ids]
        assert all(ids)
        assert len(set(ids)) == len(ids)


def test_lengths_are_those_in_the_shards(reference: Path) -> None:
    """Of a corpus in whose sources duplicates lie between the documents that stay."""
    assert len(Manifest.load(reference).splits["train"].shards) > 1
    assert_lengths(reference)


@pytest.mark.parametrize("workers", [2, 4])
def test_local_workers(
    reference: Path, config: Path, tokenizer_path: Path, tmp_path: Path, workers: int
) -> None:
    line = everything_command(config, tokenizer_path, tmp_path / "out", "--workers", workers)
    subprocess.run(line, env=environment(), check=True)
    assert files_of(tmp_path / "out") == files_of(reference)


@pytest.mark.parametrize("unit_bytes", [1500, 40_000])
def test_units(
    reference: Path, config: Path, tokenizer_path: Path, tmp_path: Path, unit_bytes: int
) -> None:
    file = ConfigFile(config)
    settings = file.check(BuildConfig, file.values).settings
    with LocalExecutor(2) as executor:
        build_corpus(settings, tokenizer_path, tmp_path / "out", executor, unit_bytes=unit_bytes)
    assert files_of(tmp_path / "out") == files_of(reference)


def test_mpi_ranks(reference: Path, config: Path, tokenizer_path: Path, tmp_path: Path) -> None:
    line = everything_command(config, tokenizer_path, tmp_path / "out", "--executor", "mpi")
    done = mpirun(3, *line)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "out") == files_of(reference)


def test_joined_tables_of_keys(
    reference: Path,
    config: Path,
    tokenizer_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a build of thousands of units does, with some dozen."""
    monkeypatch.setattr("data_prep.pipeline.duplicates.MAX_TABLES", 2)
    monkeypatch.setattr("data_prep.pipeline.duplicates._JOINED_BYTES", 9000)
    monkeypatch.setattr("data_prep.pipeline.duplicates.BUCKET_MEMORY", 50_000)
    file = ConfigFile(config)
    settings = file.check(BuildConfig, file.values).settings
    with LocalExecutor(2) as executor:
        build_corpus(settings, tokenizer_path, tmp_path / "out", executor, unit_bytes=4000)
    assert files_of(tmp_path / "out") == files_of(reference)
