"""The loader's benchmarks run on little text, and judge orders whose quality is known."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.delivery import ROWS, WARM_UP, WINDOW, deliver
from benchmarks.loading_peers import packed
from benchmarks.orders import (
    Order,
    Simulated,
    all_documents,
    all_windows,
    buffered,
    expanded,
    here,
    in_order,
)
from benchmarks.shuffling import draw, judge
from data_prep.manifest import Manifest
from data_prep.shards import read_index, read_lengths

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated()


ORDERS: dict[str, Order] = {
    "in order": in_order,
    "documents": all_documents,
    "windows": all_windows,
    "buffered": partial(buffered, size=1000),
    "expanded": partial(expanded, spread=4096),
    "here": partial(here, span=8, blocks=8, lanes=8),
    "here, uneven": partial(here, span=5, blocks=3, lanes=7),
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_delivers_all_once(simulated: Simulated, name: str) -> None:
    reading = ORDERS[name](simulated)
    assert np.array_equal(np.sort(reading.documents), np.arange(len(simulated.lengths)))
    assert np.array_equal(np.sort(reading.windows), np.arange(simulated.windows))


def test_known_orders_are_judged_as_they_are(simulated: Simulated) -> None:
    still, documents, windows = (
        judge(simulated, order(simulated)) for order in (in_order, all_documents, all_windows)
    )
    assert still.displacement == 0
    assert still.entropy == pytest.approx(0, abs=0.01)
    assert still.batch_neighbors > 0.99
    for shuffled in (documents, windows):
        assert shuffled.displacement == pytest.approx(1 / 3, abs=0.005)
        # 32 sources in 256 windows of about two documents each.
        assert 0.95 * np.log(32) < shuffled.entropy < np.log(32)
    assert windows.window_neighbors == still.window_neighbors
    assert documents.batch_neighbors < 0.01


def packed_text(
    documents: list[NDArray[np.uint16]],
) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.int32]]]:
    return packed([{"tokens.npy": document} for document in documents])


def test_packing_loses_no_token_and_knows_where_documents_begin() -> None:
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(1, 4000, 60).tolist(), 3 * ROWS * WINDOW]
    documents = [rng.integers(0, 1000, n).astype(np.uint16) for n in lengths]
    batches = list(packed_text(documents))
    text = np.concatenate(documents)
    room = ROWS * WINDOW
    assert len(batches) == len(text) // room
    assert all(rows.shape == (ROWS, WINDOW) for rows, _ in batches)
    delivered = np.concatenate([rows.ravel() for rows, _ in batches])
    assert np.array_equal(delivered, text[: len(delivered)])
    begins = {0, *np.cumsum(lengths)[:-1].tolist()}
    cut = range(0, len(delivered), room)
    expected = sorted({first for first in begins if first < len(delivered)} | set(cut))
    found = [first + at for first, (_, starts) in zip(cut, batches, strict=True) for at in starts]
    assert sorted(found) == expected


def test_delivery_counts_what_comes_after_the_warm_up() -> None:
    counts = [1] * (1 + WARM_UP) + [5, 6, 7, 8]
    assert deliver(iter(counts), 0.0, 11, nullcontext()).tokens == 11
    assert deliver(iter(counts), 0.0, 1000, nullcontext()).tokens == 26
    with pytest.raises(SystemExit, match="too few"):
        deliver(iter(counts[:-4]), 0.0, 11, nullcontext())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "text.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(4000):
            text = f"Document {number} has two sentences. 第{number}篇文章。 " * 6
            file.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
    return path


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def figures(text: Path) -> Any:
    """What `loading` measures, one repetition; its corpus is used by the other tests."""
    path = text.with_name("figures.json")
    cases = ["text", "mlm", "memmap", "nanogpt", "webdataset"]
    options = ["--input", str(text), "--work", str(text.parent), "--cases", *cases]
    options += ["--workers", "0", "1", "--repeat", "1", "--pieces", "400"]
    said = run("benchmarks.loading", *options, "--tokens", "100000", "--json", str(path))
    assert "| webdataset, 1 |" in said
    return json.loads(path.read_text())


@pytest.mark.slow
def test_loading_measures_every_case(figures: Any) -> None:
    assert len(figures["batches"]) == 10
    for name, (sample,) in figures["batches"].items():
        assert sample["tokens"] >= 100_000, name
        assert 0 < sample["seconds"] < 60, name
        assert sample["memory_bytes"] < sample["peak_bytes"] * 2, name


@pytest.mark.slow
def test_seeking_in_a_simulated_corpus(figures: Any, text: Path, tmp_path: Path) -> None:
    corpus, path = text.parent / "400" / "corpus", tmp_path / "figures.json"
    options = ["--corpus", str(corpus), "--work", str(tmp_path), "--shards", "50"]
    run("benchmarks.seeking", *options, "--repeat", "1", "--json", str(path))
    for name, (sample,) in json.loads(path.read_text())["seek"].items():
        stages = sample["stages"]
        assert ("read the first window" in stages) == (name == "the small one")
        assert stages["first window of the batch"]["seconds"] > 0
    folder = tmp_path / "shards-50"
    split = Manifest.load(folder).splits["train"]
    assert len(split.shards) == 50
    assert int(read_index(folder, split)[:, 2].sum()) == split.tokens
    assert len(read_lengths(folder, split)) == split.documents


@pytest.mark.slow
def test_the_figure_is_the_same_at_every_run(simulated: Simulated, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(simulated, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
