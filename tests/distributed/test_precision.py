"""Both precisions train under every ZeRO stage, and leave full weights in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.evaluation import load_run
from megapt.evaluation.validation import evaluate
from megapt.model import build_model
from megapt.training.prepared import prepare
from tests.ranks import run_ranks
from tests.training.runs import ALONE, last_weights, records_of, run_config, train

CASES = [("bf16", stage) for stage in (0, 1, 2, 3)] + [("fp32", 0), ("fp32", 3)]

TrainOnTwo = Callable[[str, int], RunConfig]


@pytest.fixture(scope="module")
def on_two_ranks(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainOnTwo:
    """Train on two ranks in this precision and ZeRO stage, once."""

    @cache
    def run(precision: str, stage: int) -> RunConfig:
        config = run_config(
            corpus_folder,
            tmp_path_factory.mktemp("precision") / "run",
            objective={"name": "msc"},
            optimizer={"lr": 2e-2},
            parallel={"zero_stage": stage},
            training={
                "precision": precision,
                "validate_every": 0,
                "budget": {"amount": 5000.0},
            },
        )
        run_ranks(2, train, config)
        return config

    return run


@pytest.mark.parametrize(("precision", "stage"), CASES)
def test_the_loss_falls(on_two_ranks: TrainOnTwo, precision: str, stage: int) -> None:
    losses = [record["loss"] for record in records_of(on_two_ranks(precision, stage), "train")]
    assert sum(losses[-3:]) / 3 < losses[0] - 0.5


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_stays_near_fp32(on_two_ranks: TrainOnTwo, stage: int) -> None:
    coarse, fine = (records_of(on_two_ranks(p, s)) for p, s in (("bf16", stage), ("fp32", 0)))
    assert len(coarse) == len(fine)
    for mine, theirs in zip(coarse, fine, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=0.02)
    assert coarse[0]["gradient_norm"] == pytest.approx(fine[0]["gradient_norm"], rel=0.02)


@pytest.mark.parametrize(("precision", "stage"), CASES)
def test_a_checkpoint_holds_all_weights_in_float32(
    on_two_ranks: TrainOnTwo, precision: str, stage: int
) -> None:
    config = on_two_ranks(precision, stage)
    weights = last_weights(config)
    prepared = prepare(config, ALONE, Origins())
    model = build_model(config, prepared.parts.objective.heads, prepared.corpus.vocabulary.size)
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    assert {name: weight.shape for name, weight in weights.items()} == shapes
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    # These are the optimizer's own weights, not bfloat16 copies of them.
    for name, weight in weights.items():
        assert not torch.equal(weight, weight.bfloat16().float()), name


# Rounding differs, and Adam makes whole steps of it where gradients are small; weights of another
# shard or another step would be further apart than their own size.
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_weights_are_alike_under_every_stage(on_two_ranks: TrainOnTwo, stage: int) -> None:
    found, expected = (
        last_weights(on_two_ranks("bf16", stage)),
        last_weights(on_two_ranks("bf16", 0)),
    )
    matrices = {name: weight for name, weight in found.items() if weight.ndim > 1}
    for name, weight in matrices.items():
        apart = (weight - expected[name]).norm() / expected[name].norm()
        assert apart < 0.15, f"{name}: {apart}"


@pytest.mark.parametrize(("precision", "stage"), CASES)
def test_the_loaded_run_has_the_heldout_loss_of_the_summary(
    on_two_ranks: TrainOnTwo, precision: str, stage: int
) -> None:
    config = on_two_ranks(precision, stage)
    run = load_run(config.output)
    assert run.step == RunFolder(config.output).summary()["steps"]
    assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
    validation = prepare(config, ALONE, Origins()).validation
    scores = evaluate(
        run.model,
        validation,
        windows=config.training.validation_windows,
        micro_batch_size=3,
        ranks=ALONE,
    )
    stated = RunFolder(config.output).summary()["validation"]
    losses = {name: value for name, value in stated.items() if name.startswith("loss")}
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    assert {name: scores[name] for name in losses} == pytest.approx(losses, rel=tolerance)
    if precision == "fp32":
        assert scores == pytest.approx(stated, rel=1e-5)
