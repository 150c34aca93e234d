"""What a run reads does not depend on how it is read, and the checkpoint proves it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import TrainingError
from tests.corpora import make_documents
from tests.ranks import end_ranks, run_ranks
from tests.training.runs import (
    assert_follows,
    records_of,
    run_config,
    train,
    train_with_signal,
    without_clock,
)


def data_state(config: RunConfig) -> dict[str, Any]:
    """What the newest checkpoint keeps of the data."""
    *_, newest = sorted(RunFolder(config.output).checkpoints.glob("step-*"))
    state: dict[str, Any] = json.loads((newest / "trainer.json").read_text())["data"]
    return state


@pytest.mark.parametrize("lanes", [1, 8])
def test_losses_and_state_do_not_depend_on_ranks_and_workers(
    corpus_folder: Path, tmp_path: Path, lanes: int
) -> None:
    runs = {}
    for world, workers in ((1, 0), (1, 2), (2, 0), (2, 2)):
        data = {"lanes": lanes, "num_workers": workers}
        config = run_config(corpus_folder, tmp_path / f"{world}-{workers}", data=data)
        run_ranks(world, train, config)
        runs[world, workers] = config
    plain = runs[1, 0]
    for config in runs.values():
        assert_follows(records_of(config), records_of(plain))
        assert data_state(config) == data_state(plain)
        assert RunFolder(config.output).summary()["data"] == data_state(plain)
    state = data_state(plain)
    assert state["windows"] == 8 * len(records_of(plain, "train"))
    assert int(state["digest"], 16)
    assert state["order"]["lanes"] == lanes
    assert state["skipped"] == {}


@pytest.fixture(scope="module")
def mixed(
    corpus_folder: Path, build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunConfig]:
    """The configuration of a run over two corpora, of which one joins in step 3."""
    second = build(make_documents(120, seed=5))

    def config(output: Path, cap: float | None = None, **training: Any) -> RunConfig:
        corpora = {
            "tales": {"path": str(corpus_folder), "weight": 2.0, "max_epochs": 0.15},
            "news": {"path": str(second), "weight": 0.0, "max_epochs": cap},
        }
        schedule = [{"step": 3, "weights": {"news": 1.0}}]
        mixture = {"corpora": corpora, "schedule": schedule}
        data = {"corpus": None, "mixture": mixture}
        return run_config(
            corpus_folder,
            output,
            data=data,
            training={"budget": {"amount": 3000.0}, **training},
            checkpoint={"every": 2},
        )

    return config


def test_a_mixture_follows_its_schedule_and_its_cap_through_a_kill(
    mixed: Callable[..., RunConfig], tmp_path: Path
) -> None:
    whole = mixed(tmp_path / "whole")
    run_ranks(1, train, whole)
    records = records_of(whole, "train")
    news = [record["epoch/news"] for record in records]
    tales = [record["epoch/tales"] for record in records]
    assert news[2] == 0 < news[3]
    assert tales[-1] == tales[-2] == pytest.approx(0.15, abs=0.01), "the cap, in whole windows"
    assert news == sorted(news)
    config = mixed(tmp_path / "run")
    outcomes, _ = end_ranks(1, train_with_signal, config, signal.SIGKILL, 6)
    assert outcomes[0].killed
    run_ranks(1, train, config)
    assert without_clock(records_of(config)) == without_clock(records_of(whole))
    assert data_state(config) == data_state(whole)
    two = mixed(tmp_path / "two")
    run_ranks(2, train, two)
    assert data_state(two) == data_state(whole)


def train_to_the_end(ranks: Ranks, config: RunConfig) -> str:
    """Return the text of the TrainingError that the run ends with."""
    with pytest.raises(TrainingError) as error:
        train(ranks, config)
    return str(error.value)


def test_used_up_corpora_end_the_run(mixed: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = mixed(tmp_path / "run", cap=0.1, budget={"axis": "targets", "amount": 1e6})
    first, second = run_ranks(2, train_to_the_end, config)
    assert first == second
    steps = len(records_of(config, "train"))
    assert first.startswith(f"{config.output}: the corpora are used up after step {steps}, at ")
    assert "max_epochs" in first
    assert "\n" not in first
    assert data_state(config)["windows"] == 8 * steps


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def served(corpus_folder: Path) -> Iterator[str]:
    """The corpus at an http URL."""
    handler = partial(_Quiet, directory=str(corpus_folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corpus_at_a_url_trains_as_the_local_one(
    trained: Callable[..., RunConfig], served: str, tmp_path: Path, workers: int
) -> None:
    local = trained("arlm")
    data = {
        "corpus": served,
        "num_workers": workers,
        "reading": {"cache_dir": str(tmp_path / "cache")},
    }
    config = run_config(Path(served), tmp_path / "run", data=data)
    run_ranks(1, train, config)
    assert without_clock(records_of(config)) == without_clock(records_of(local))
    assert data_state(config) == data_state(local)


@pytest.mark.parametrize("objective", ["bert", "mgm"])
@pytest.mark.parametrize("attention", ["rows", "grouped"])
def test_rows_of_one_length_give_the_same_losses(
    trained: Callable[..., RunConfig],
    corpus_folder: Path,
    tmp_path: Path,
    objective: str,
    attention: str,
) -> None:
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        objective={"name": objective},
        training={"attention": attention, "row_length": 128},
    )
    run_ranks(2, train, config)
    laid_flat = records_of(trained(objective))
    assert_follows(records_of(config), laid_flat)
    packed = [record["packing_efficiency"] for record in records_of(config, "train")]
    assert all(0.1 < share < 1 for share in packed)
    assert {r["packing_efficiency"] for r in laid_flat if r["split"] == "train"} == {1.0}
