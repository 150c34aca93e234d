"""Builds that are cut short, and how the next one goes on."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prep_execution import descendants, is_running, wait_for
from prep_support import (
    Prep,
    build,
    command,
    environment,
    files_of,
    make_documents,
    write_jsonl,
)

from data_prep import workspace
from data_prep.errors import PrepError
from data_prep.workspace import open_workspace
from tests.patience import patience

Popen = subprocess.Popen[str]

UNIT_BYTES = 500_000
IN_SMALL_UNITS = f"""
import data_prep.build, data_prep.cli
data_prep.build.UNIT_BYTES = {UNIT_BYTES}
data_prep.cli.main()
"""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work to cut a build short in its midst."""
    path = write_jsonl(tmp_path_factory.mktemp("large") / "part.jsonl", make_documents(2000))
    data = path.read_bytes()
    path.write_bytes(data * (6_000_000 // len(data)))
    return path


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, tokenizer_path: Path
) -> dict[str, bytes]:
    """The files of a build that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    subprocess.run(
        build_command(large_file, tokenizer_path, output, 2), env=environment(), check=True
    )
    return files_of(output)


def build_command(source: Path, tokenizer: Path, output: Path, workers: int) -> list[str]:
    paths = ("--input", source, "--tokenizer", tokenizer, "--output", output)
    return command("build", *paths, "--workers", workers, "--valid-fraction", 0.1)


def finished_units(output: Path) -> list[Path]:
    units = output.with_name(output.name + ".partial") / "units"
    return [path for path in units.glob("*") if path.suffix != ".partial"]


@pytest.fixture
def half_built(large_file: Path, tokenizer_path: Path, tmp_path: Path) -> Iterator[Popen]:
    """A build by two processes in its midst: of a dozen units two are finished."""
    words = build_command(large_file, tokenizer_path, tmp_path / "out", 2)[3:]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_SMALL_UNITS, *words],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(finished_units(tmp_path / "out")) >= 2, 30)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_build_cut_short_orphans_nobody_and_is_gone_on_with(
    half_built: Popen,
    undisturbed: dict[str, bytes],
    prep: Prep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    monkeypatch.setattr("data_prep.build.UNIT_BYTES", UNIT_BYTES)
    workers = descendants(half_built.pid)
    assert len(workers) >= 2
    half_built.send_signal(number)
    _, err = half_built.communicate(timeout=patience(20))
    assert half_built.returncode == code
    if number != signal.SIGKILL:
        *progress, first, last = err.splitlines()
        assert all(line.startswith("tokenize: ") for line in progress), err
        assert f"finished work is kept in {tmp_path / 'out.partial'}" in first
        assert last == "megapt-prep: interrupted"
    wait_for(lambda: not any(is_running(pid) for pid in workers), 30)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    kept = {path: path.stat().st_ctime_ns for path in finished_units(tmp_path / "out")}
    assert kept
    # A unit that a power cut damaged is done again; the others are used.
    damaged = next(iter(kept)) / "train.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert prep(*half_built.args[3:]).code == 0  # type: ignore[index, arg-type]
    assert files_of(tmp_path / "out") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_what_is_missing_is_done_again(
    corpus_file: Path, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.build.find_duplicates", fail)
        with pytest.raises(KeyboardInterrupt):
            build([corpus_file], tokenizer_path, output, unit_bytes=9000)
    units = {path.name: path.stat().st_ino for path in finished_units(output)}
    assert len(units) > 3

    def refuse(*_: object) -> None:
        names = {path.name: path.stat().st_ino for path in finished_units(output)}
        assert names == units, "a finished unit was done again"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.build.find_duplicates", refuse)
        with pytest.raises(KeyboardInterrupt):
            build([corpus_file], tokenizer_path, output, unit_bytes=9000)
    # Other settings find nothing of it.
    with monkeypatch.context() as patch:
        patch.setattr("data_prep.build.find_duplicates", fail)
        with pytest.raises(KeyboardInterrupt):
            build([corpus_file], tokenizer_path, output, unit_bytes=9000, seed=1)
    assert len(finished_units(output)) == 2 * len(units)
    build([corpus_file], tokenizer_path, output, unit_bytes=9000)
    build([corpus_file], tokenizer_path, tmp_path / "fresh")
    assert files_of(output) == files_of(tmp_path / "fresh")


def test_a_mended_input_keeps_the_work_on_the_rest(tokenizer_path: Path, tmp_path: Path) -> None:
    sources = [write_jsonl(tmp_path / f"{n}.jsonl", make_documents(60, n)) for n in range(4)]
    good = sources[3].read_bytes()
    sources[3].write_bytes(good[:-1] + b"]")
    output = tmp_path / "out"
    with pytest.raises(PrepError, match=r"3\.jsonl:60: "):
        build(sources, tokenizer_path, output, unit_bytes=9000)
    kept = {path.name for path in finished_units(output)}
    assert kept
    sources[3].write_bytes(good)
    build(sources, tokenizer_path, output, unit_bytes=9000)
    build(sources, tokenizer_path, tmp_path / "fresh")
    assert files_of(output) == files_of(tmp_path / "fresh")


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk(large_file: Path, tokenizer_path: Path, tmp_path: Path, workers: int) -> None:
    # A limit on file size fails a write as a full disk does.
    output = tmp_path / "out"
    done = subprocess.run(
        build_command(large_file, tokenizer_path, output, workers),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"megapt-prep: error: {output}.partial/units/")
    assert done.stderr.endswith("train.tar.partial: File too large\n")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_failed_build_leaves_the_corpus_before_it_alone(
    prep: Prep, tokenizer_path: Path, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", make_documents(80))
    line = ("build", "--input", source, "--tokenizer", tokenizer_path, "--valid-fraction", 0.1)
    output = tmp_path / "out"
    assert prep(*line, "--output", output).code == 0
    before = files_of(output)
    source.write_bytes(source.read_bytes() + b"{")
    assert prep(*line, "--output", output, "--overwrite").code == 2
    assert files_of(output) == before


def test_a_corpus_is_replaced_or_kept_whole(tmp_path: Path) -> None:
    """Killed between the two renames, the old corpus gets its name back."""
    output = tmp_path / "out"
    root = tmp_path / "out.partial"
    (root / "replaced").mkdir(parents=True)
    (root / "replaced" / "old").touch()
    with open_workspace(output):
        assert [path.name for path in output.iterdir()] == ["old"]
    with open_workspace(output) as space:
        (space.corpus / "new").touch()
        (space.corpus / "left over").touch()
        space.publish({"new"})
    assert [path.name for path in output.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_second_build_of_the_same_corpus_is_refused(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "out") as space:
        (space.corpus / "file").touch()
        with (
            pytest.raises(PrepError, match="another megapt-prep is building"),
            open_workspace(tmp_path / "out"),
        ):
            pytest.fail("both were let in")
        space.publish({"file"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(workspace.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workspace.fcntl, "flock", refuse)
    with open_workspace(tmp_path / "out") as space:
        (space.corpus / "file").touch()
        space.publish({"file"})
    assert (tmp_path / "out" / "file").exists()


def test_input_that_changes_meanwhile_is_told(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_prep.pipeline import duplicates

    source = write_jsonl(tmp_path / "in.jsonl", make_documents(80))

    def write_again(*arguments: Any) -> duplicates.Dropped:
        source.write_bytes(source.read_bytes() + b"\n")
        return duplicates.Dropped()

    monkeypatch.setattr("data_prep.build.find_duplicates", write_again)
    with pytest.raises(PrepError, match=r"in\.jsonl: changed while it was read"):
        build([source], tokenizer_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
