"""Settings of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.loading import SMALL, Write, changed, load, refusal


def test_overrides_change_single_values(run_file: Path) -> None:
    words = [
        "training.budget.amount=1e6",
        "model.tie_word_embeddings=false",
        "output=elsewhere",
        "seed=9",
    ]
    config = load(run_file, *words)
    assert config.training.budget.amount == 1e6
    assert (config.model.tie_word_embeddings, config.model.hidden_size) == (False, 16)
    assert (config.output, config.seed) == ("elsewhere", 9)


def test_a_section_named_on_the_command_line_replaces_the_whole_old_one(
    run_file: Path, write: Write
) -> None:
    write("model/plain.yaml", SMALL)
    changed(run_file, "model: small", "model: {base: small, dropout: 0.5}")
    assert load(run_file).model.dropout == 0.5
    assert load(run_file, "model=plain").model.dropout == 0.0


@pytest.mark.parametrize(
    "words", [["model=big", "model.num_heads=4"], ["model.num_heads=4", "model=big"]]
)
def test_named_sections_are_applied_before_single_values(
    run_file: Path, write: Write, words: list[str]
) -> None:
    write("model/big.yaml", SMALL.replace("num_layers: 2", "num_layers: 24"))
    model = load(run_file, *words).model
    assert (model.num_layers, model.num_heads) == (24, 4)


def test_overrides_reach_sections_that_the_file_leaves_out(run_file: Path) -> None:
    assert load(run_file, "optimizer.lr=0.5").optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.layer=3", "did you mean 'num_layers'?"),
        ("model.num_layers=deep", "model.num_layers"),
        ("model.num_layers=", "model.num_layers"),
        ("model.num_layers=2.5", "model.num_layers"),
        ("seeed=3", "did you mean 'seed'?"),
        ("model.num_layers.inner=3", "model.num_layers"),
        ("output.x=1", "holds no keys"),
    ],
)
def test_a_wrong_override_is_told_as_the_command_line(run_file: Path, word: str, said: str) -> None:
    text = refusal(run_file, word)
    assert text.startswith("command line: ")
    assert said in text


@pytest.mark.parametrize("word", ["seed", "=3", "", "model.num_layers: 3"])
def test_a_word_that_is_no_override_is_refused(run_file: Path, word: str) -> None:
    assert refusal(run_file, word).startswith("command line: ")


@pytest.mark.parametrize("word", ["seed=[1", "seed=${", "seed={a: ", "a..b=3", ".=3", "[=3"])
def test_an_override_that_is_not_yaml_is_refused(run_file: Path, word: str) -> None:
    refusal(run_file, word)


def test_a_misspelt_preset_on_the_command_line_is_answered_with_the_nearest(
    run_file: Path,
) -> None:
    assert "did you mean 'small'?" in refusal(run_file, "model=smal")


def test_overriding_a_value_does_not_change_where_others_come_from(run_file: Path) -> None:
    changed(run_file, "amount: 1000", "amount: wrong")
    assert refusal(run_file, "model.num_layers=3").startswith(
        f"{run_file}:8: training.budget.amount"
    )
