"""Merge and reshard cut short: by a signal, by a full disk."""

import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from prep_corpora import Made, make_corpus, make_texts
from prep_support import command, environment, files_of

from tests.patience import patience

INPUTS = ["a", "b"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    for seed, name in enumerate(INPUTS):
        make_corpus(folder / name, make_texts(500, seed), block_tokens=10**4, shard_tokens=10**5)
    return folder


def merge(inputs: Path, output: str, tokens: int) -> list[str]:
    """The command that merges the inputs into shards of so many tokens."""
    sizes = ("--block-tokens", tokens, "--shard-tokens", tokens, "--workers", 2)
    folders = [inputs / name for name in INPUTS]
    return command("merge", *folders, "--output", inputs / output, *sizes)


def half_merged(inputs: Path, tokens: int) -> "subprocess.Popen[str]":
    """A merge of which some shards are written, and most are not."""
    records = inputs / "out.partial" / "records"
    before = len(list(records.glob("*.json")))
    process = subprocess.Popen(
        merge(inputs, "out", tokens), env=environment(), stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + patience(60)
    while len(list(records.glob("*.json"))) < before + 5:
        assert time.monotonic() < end, "waited too long"
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_leaves_nothing(inputs: Path, number: signal.Signals, code: int) -> None:
    merging = half_merged(inputs, 1)
    merging.send_signal(number)
    _, err = merging.communicate(timeout=patience(30))
    assert merging.returncode == code, err
    assert err.startswith("megapt-prep: interrupted")
    assert err.count("\n") == 1
    assert sorted(path.name for path in inputs.iterdir()) == INPUTS


def test_killed_merge_is_finished_by_the_next(inputs: Path) -> None:
    # The second leaves shards of another size under the names of those of the first.
    for tokens in (200, 50):
        merging = half_merged(inputs, tokens)
        merging.kill()
        merging.communicate()
    assert sorted(path.name for path in inputs.iterdir()) == [*INPUTS, "out.partial"]
    for output in ("out", "fresh"):
        subprocess.run(
            merge(inputs, output, 200), env=environment(), check=True, capture_output=True
        )
    assert files_of(inputs / "out") == files_of(inputs / "fresh")
    assert sorted(path.name for path in inputs.iterdir()) == [*INPUTS, "fresh", "out"]


def test_full_disk(tmp_path: Path) -> None:
    texts = [Made(number, f"the old river {number} 我们去北京。" * 9000) for number in range(6)]
    make_corpus(tmp_path / "a", texts, block_tokens=1, shard_tokens=1)
    # A limit on file size fails a write as a full disk does.
    done = subprocess.run(
        command("reshard", tmp_path / "a", "--output", tmp_path / "b", "--shard-tokens", 10**9),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        check=False,
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
