"""The benchmarks of objectives and of their loss run on little, and compare what is equal."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from benchmarks import loss_head, objectives
from megapt.objectives import OBJECTIVES

TASK = argparse.Namespace(positions=64, vocabulary=100, dtype="float32", share=0.5, hidden=16)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few short windows: the sentinels of the tests' tokenizer are enough for them."""
    monkeypatch.setattr(objectives, "WINDOW", 64)
    monkeypatch.setattr(objectives, "WINDOWS", 8)


@pytest.mark.usefixtures("little")
def test_every_objective_and_every_variant_is_measured(
    corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = objectives.measure_objectives(corpus_folder, repeat=2)
    said = capsys.readouterr()
    assert "skipped" not in said.err
    variants = sum(map(len, objectives.VARIANTS.values()))
    assert len(found) == len(OBJECTIVES) + variants
    assert {name.split()[0] for name in found} == set(OBJECTIVES)
    for name, rates in found.items():
        assert f"| {name} |" in said.out
        assert len(rates) == 2
        assert min(rates) > 0


@pytest.mark.usefixtures("little")
def test_what_the_tokenizer_lacks_is_named_and_skipped(
    corpus_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "WINDOW", 512)
    found = objectives.measure_objectives(corpus_folder, repeat=1)
    assert {name.split()[0] for name in found} == set(OBJECTIVES) - {"span_corruption", "ul2"}
    said = capsys.readouterr().err
    assert "span_corruption: skipped: " in said
    assert "the tokenizer has 16 sentinels" in said


@pytest.mark.usefixtures("little")
def test_the_collators_are_measured_beside_mlm(
    corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = objectives.measure_collators(corpus_folder, repeat=1)
    assert sorted(found) == [
        *("Hugging Face, tokens", "Hugging Face, whole words"),
        *(
            f"megapt, {unit}s, {made}"
            for unit in ("token", "word")
            for made in ("batches", "examples")
        ),
    ]
    assert "| tokens, batches |" in capsys.readouterr().out


def test_a_window_becomes_one_piece_of_the_same_text(corpus_folder: Path) -> None:
    for window in objectives.read_windows(objectives.Corpus(corpus_folder))[:4]:
        (piece,) = objectives.whole(window).pieces
        assert piece.tokens.tolist() == [t for p in window.pieces for t in p.tokens.tolist()]
        assert len(piece.word_starts) == len(piece.sentence_starts) == window.raw_tokens


def test_all_ways_to_the_loss_give_the_same() -> None:
    task = loss_head.make_task(TASK, TASK.share, TASK.hidden)
    assert len(task.places) == 32
    losses = torch.stack([case(task).detach().cpu() for case in loss_head.CASES.values()])
    torch.testing.assert_close(losses, losses[:1].expand_as(losses))


def test_seconds_and_bytes_of_a_case_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["loss_head", "--case", loss_head.OURS, "--positions", "64", "--vocabulary", "100"]
    monkeypatch.setattr("sys.argv", [*words, "--hidden", "16"])
    loss_head.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"bytes", "seconds"}
    assert found["seconds"] > 0
    assert found["bytes"] >= 0
