"""The folder of a build: who may be in it, and what is there when it ends, however it ends."""

import os
from pathlib import Path
from typing import Any

import pytest

from data_prep import workspace
from data_prep.errors import PrepError
from data_prep.workspace import open_workspace


def finished_corpus(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "old").touch()
    return path


def publish(output: Path) -> None:
    with open_workspace(output) as space:
        (space.corpus / "new").touch()
        space.publish({"new"})


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_corpus_survives_the_failure_of_its_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    output = finished_corpus(tmp_path / "out")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name == "corpus":
            raise error
        rename(source, target)

    monkeypatch.setattr(workspace.os, "rename", fail)
    with pytest.raises(error):
        publish(output)
    assert [path.name for path in output.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_link_points_to_is_built(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "corpus", tmp_path / "out"
    link.symlink_to(real)
    for _ in range(2):  # a link to nothing at first, then to a corpus
        with open_workspace(link) as space:
            assert space.root == tmp_path / "disk" / "corpus.partial"
            (space.corpus / "new").touch()
            space.publish({"new"})
        assert link.is_symlink()
        assert [path.name for path in real.iterdir()] == ["new"]
        assert [path.name for path in real.parent.iterdir()] == ["corpus"]


def test_places_that_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for output, message in ((Path("."), "is the current folder"), (Path("/"), "is a mount point")):
        with pytest.raises(PrepError, match=message), open_workspace(output):
            pytest.fail("it was let in")
    assert not list(tmp_path.iterdir())


def test_a_lock_that_its_owner_has_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other build ends between our opening of the lock file and our locking it."""
    flock, times = workspace.fcntl.flock, []

    def remove_first(lock: Any, operation: int) -> None:
        times.append(lock)
        if len(times) == 1:
            os.unlink(lock.name)
        flock(lock, operation)

    monkeypatch.setattr(workspace.fcntl, "flock", remove_first)
    with open_workspace(tmp_path / "out") as space:
        assert len(times) == 2
        assert times[0].closed
        with pytest.raises(PrepError, match="another"), open_workspace(tmp_path / "out"):
            pytest.fail("both were let in")
        (space.corpus / "new").touch()
        space.publish({"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_fault_while_folders_are_made_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace, "_prepare", refuse)
    with pytest.raises(OSError, match="No space left"), open_workspace(tmp_path / "out"):
        pytest.fail("it was let in")
    assert not list(tmp_path.iterdir())
