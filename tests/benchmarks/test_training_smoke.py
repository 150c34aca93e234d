"""The benchmarks of training run on little, and count what they should."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import checkpoints, gpu, training, training_here, training_peers, utilization
from benchmarks.turns import Case, Turns
from data_prep.manifest import Manifest
from megapt.distributed.ranks import Ranks
from tests.ranks import run_ranks

WINDOW, BATCH = 48, 4
SHAPE = {
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "window": WINDOW,
    "batch": BATCH,
    "precision": "fp32",
    "attention": "grouped",
}


class Counted(Turns):
    """Ends the loop after some updates; keeps the tokens of each."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.tokens: list[int] = []

    def updated(self, tokens: int) -> None:
        self.tokens.append(tokens)
        if len(self.tokens) == self.updates:
            raise SystemExit


@pytest.fixture(scope="module")
def flat(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flat")
    training.lay_flat(corpus_folder, folder)
    return folder


@pytest.fixture(params=["arlm", "mlm"])
def options(request: pytest.FixtureRequest, corpus_folder: Path, flat: Path) -> argparse.Namespace:
    return argparse.Namespace(**SHAPE, objective=request.param, data=corpus_folder, flat=flat)


def tokens_of(case: Case, options: argparse.Namespace, updates: int = 3) -> list[int]:
    turns = Counted(updates)
    with pytest.raises(SystemExit):
        case(options, turns)
    return turns.tokens


def tokens_of_trainer(ranks: Ranks, options: argparse.Namespace) -> list[int]:
    return tokens_of(training_here.megapt, options, updates=12)  # past a record of its metrics


def test_the_peers_read_the_text_of_the_corpus(corpus_folder: Path, flat: Path) -> None:
    tokens, lengths = np.load(flat / "tokens.npy"), np.load(flat / "lengths.npy")
    split = Manifest.load(corpus_folder).splits["train"]
    assert len(tokens) == lengths.sum() == split.tokens
    assert len(lengths) == split.documents


@pytest.mark.parametrize("case", [training_here.bare, training_peers.plain])
def test_bare_loops_train(case: Case, options: argparse.Namespace) -> None:
    assert tokens_of(case, options) == [WINDOW * BATCH] * 3


def test_the_whole_trainer_trains_in_turns(options: argparse.Namespace) -> None:
    (tokens,) = run_ranks(1, tokens_of_trainer, options)
    assert tokens == [WINDOW * BATCH] * 12


@pytest.mark.parametrize("case", ["hf", "hf-by-length"])
def test_their_trainer_counts_text_alone(case: str, options: argparse.Namespace) -> None:
    pytest.importorskip("accelerate")
    tokens = tokens_of(training_peers.CASES[case], options, updates=20)
    if options.objective == "arlm":
        assert tokens == [WINDOW * BATCH] * 20
    else:
        assert 0.7 * WINDOW * BATCH < np.mean(tokens) < 1.3 * WINDOW * BATCH


def test_their_rows_hold_all_text_once(options: argparse.Namespace) -> None:
    flat = training_peers.Flat(options)
    rows = training_peers.Rows(options, flat)
    held = [row["input_ids"] for row in rows.rows]
    if options.objective == "mlm":
        special = flat.special
        assert all(ids[0] == special["cls"] and ids[-1] == special["sep"] for ids in held)
        held = [ids[1:-1] for ids in held]
    text = [token for ids in held for token in ids]
    assert text == flat.tokens[: len(text)].tolist()
    assert len(flat.tokens) - len(text) < WINDOW
    assert max(map(len, held)) <= WINDOW
    assert rows.mean == pytest.approx(len(text) / len(rows))


def test_all_models_have_one_shape(options: argparse.Namespace) -> None:
    special = training_peers.Flat(options).special
    plain = training_peers.Plain(options, special["size"])
    theirs = training_peers.their_model(options, special)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (plain, theirs)]
    # GPT-2 has biases; BERT has segments, and its output a bias of its own.
    assert sizes[0] <= sizes[1] < 1.1 * sizes[0]


def test_a_loop_runs_in_its_turns(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    words = ["training", "--corpus", str(corpus_folder), "--objectives", "arlm"]
    words += ["--cases", "plain", "--repeat", "2", "--seconds", "0.05", "--threads", "1"]
    shape = [f"--{name}={value}" for name, value in SHAPE.items()]
    monkeypatch.setattr("sys.argv", [*words, *shape, "--json", str(tmp_path / "figures.json")])
    training.main()
    turns = json.loads((tmp_path / "figures.json").read_text())["arlm"]["plain"]
    assert [turn["tokens"] for turn in turns] == [turn["updates"] * 192 for turn in turns]
    assert all(turn["seconds"] >= 0.05 for turn in turns)
    assert "| plain |" in capsys.readouterr().out


def small(**changes: Any) -> argparse.Namespace:
    usual = {"positions": 32, "batch": 2, "vocabulary": 64, "precision": "fp32", "product": 64}
    return argparse.Namespace(**{**usual, "repeat": 2, "updates": 1, **changes})


def of_task(ranks: Ranks, objective: str) -> dict[str, Any]:
    return utilization.measure(objective, "64x1", ranks, small())


@pytest.mark.parametrize("objective", ["arlm", "mlm"])
def test_utilization_is_flops_over_products(objective: str) -> None:
    (found,) = run_ranks(1, of_task, objective)
    for share, seconds, peak in zip(
        found["utilization"], found["seconds"], found["peaks"], strict=True
    ):
        assert share == pytest.approx(found["flops"] / seconds / peak)
    assert found["tokens"] == 2 * (32 if objective == "arlm" else 30)
    # Six for each weight of a product and position, attention's pairs, and the targets' logits.
    layers = 4 * 64 * 64 + 3 * 64 * utilization.inner_width(64)
    targets, pairs = (64, 2 * 32 * 33 // 2) if objective == "arlm" else (None, 2 * 32 * 32)
    fewest = 6 * (64 * layers + 2 * 64 * pairs)
    if targets is not None:
        assert found["flops"] == fewest + 6 * targets * 64 * 64
    assert fewest < found["flops"] < 1.2 * (fewest + 6 * 64 * 64 * 64)


def on_gpu(ranks: Ranks, case: dict[str, Any]) -> dict[str, Any]:
    return gpu.measure(case, small())


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_gpu_benchmark_runs_without_one(compiled: bool) -> None:
    case = {"size": "64x1", "objective": "arlm", "attention": "grouped", "compile": compiled}
    (found,) = run_ranks(1, on_gpu, {**case, "chunk": 2**10, "micro_batch_size": 2})
    assert found["tokens"] == 64
    assert found["foundry_flops"] > found["flops"]
    cells = gpu.row(found)
    assert cells[:6] == ["64x1", "arlm", "grouped", "yes" if compiled else "no", "2", "2^10"]
    assert "peak unknown" in cells


def test_the_sweep_goes_on_from_the_best_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def apart(case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
        tried.append(case)
        if case["micro_batch_size"] > 8:
            return {**case, "failed": gpu.FULL}
        return {**case, "tokens": case["micro_batch_size"], "seconds": [1.0]}

    monkeypatch.setattr(gpu, "apart", apart)
    options = argparse.Namespace(attention=["varlen", "flex"], micro_batches=[4, 8, 16, 32])
    found = gpu.explore("350M", "mlm", options)
    assert [case["micro_batch_size"] for case in tried] == [4, 8, 16, 8, 8, 8]
    assert [case["attention"] for case in tried] == [*["varlen"] * 4, "flex", "varlen"]
    assert [case["compile"] for case in tried] == [*[True] * 5, False]
    assert "out of memory" in gpu.row(found[2])


def test_what_a_save_costs_is_what_is_beyond_usual_updates() -> None:
    intervals = [1.0] * 3 + [3.0, 1.5, 1.0, 1.0] + [2.0, 1.0, 1.0, 1.0]
    moments = [0.0, *np.cumsum(intervals).tolist()]
    standing, whole = checkpoints.lost(moments, every=4)
    assert standing == [2.0, 1.0]
    assert whole == [2.5, 1.0]


@pytest.mark.slow
def test_checkpoints_are_measured(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = tmp_path / "figures.json"
    words = ["checkpoints", "--corpus", str(corpus_folder), "--work", str(tmp_path / "work")]
    words += ["--sizes", "64x1", "--stages", "0", "--window", "48", "--every", "4", "--saves", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--json", str(figures)])
    checkpoints.main()
    synchronous, asynchronous = json.loads(figures.read_text())["cases"]
    for case in (synchronous, asynchronous):
        assert len(case["standing"]) == len(case["lost"]) == 2
        assert case["bytes"] > 0
    for way in ("same", "converted"):
        assert synchronous[way]["newest"] > 0
        assert synchronous[way]["load"] > 0
