from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from megapt.config import (
    BranchConfig,
    BudgetConfig,
    CheckpointConfig,
    CompareConfig,
    CorpusConfig,
    DataConfig,
    FaultsConfig,
    MixtureConfig,
    ModelConfig,
    MonitorConfig,
    OptimizerConfig,
    ParallelConfig,
    PartSection,
    ReadingConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
)

SECTIONS = [
    BranchConfig,
    BudgetConfig,
    CheckpointConfig,
    CompareConfig,
    CorpusConfig,
    DataConfig,
    FaultsConfig,
    MixtureConfig,
    ModelConfig,
    MonitorConfig,
    OptimizerConfig,
    ParallelConfig,
    ReadingConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
]
MODEL = {"num_layers": 1, "hidden_size": 8, "num_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_are_strict_and_cannot_change(section: type[BaseModel]) -> None:
    # A part checks itself what is extra.
    assert section.model_config["extra"] == (
        "allow" if issubclass(section, PartSection) else "forbid"
    )
    assert section.model_config["strict"] is True
    assert section.model_config["frozen"] is True


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (DataConfig, {"corpus": "c", "window": 15}),
        (DataConfig, {"corpus": "c", "window_policy": "cut"}),
        (DataConfig, {"corpus": "c", "window": "512"}),
        (DataConfig, {"corpus": 3}),
        (DataConfig, {"corpus": "c", "lanes": 0}),
        (DataConfig, {"corpus": "c", "shuffle_buffer_blocks": 0}),
        (ReadingConfig, {"on_damage": "ignore"}),
        (ReadingConfig, {"max_retries": -1}),
        (ReadingConfig, {"timeout": 0}),
        (CorpusConfig, {"path": "c", "weight": -1.0}),
        (ModelConfig, {**MODEL, "num_layers": 0}),
        (ModelConfig, {**MODEL, "num_layers": 1.5}),
        (ModelConfig, {**MODEL, "num_layers": True}),
        (ModelConfig, {**MODEL, "bias": 1}),
        (ModelConfig, {**MODEL, "dropout": 1.0}),
        (ModelConfig, {**MODEL, "positions": "alibi"}),
        (OptimizerConfig, {"lr": 0}),
        (OptimizerConfig, {"beta2": 1.0}),
        (OptimizerConfig, {"weight_decay": -0.1}),
        (ScheduleConfig, {"warmup_ratio": 1.5}),
        (ScheduleConfig, {"name": "step"}),
        (BudgetConfig, {"amount": 0}),
        (BudgetConfig, {"amount": 5, "axis": "epochs"}),
        (TrainingConfig, {"budget": {"amount": 5}, "precision": "fp8"}),
        (TrainingConfig, {"budget": {"amount": 5}, "micro_batch_size": 0}),
        (TrainingConfig, {"budget": {"amount": 5}, "attention": 3}),
        (TrainingConfig, {"budget": {"amount": 5}, "row_length": 64, "open_rows": 0}),
        (ScheduleConfig, {"batch_size_rampup": [{"until": 0.5, "global_batch_size": 0}]}),
        (ScheduleConfig, {"batch_size_rampup": [{"until": 1.0, "global_batch_size": 8}]}),
        (
            ScheduleConfig,
            {"window_rampup": [{"until": 0.5, "length": 64}, {"until": 0.2, "length": 96}]},
        ),
        (ParallelConfig, {"zero_stage": 4}),
        (ParallelConfig, {"offload_optimizer": "cpu"}),
        (ParallelConfig, {"offload_param": "cpu", "zero_stage": 2}),
        (ParallelConfig, {"offload_optimizer": "nvme", "zero_stage": 3}),
        (ParallelConfig, {"zero_quantized_weights": True, "zero_stage": 1}),
        (CheckpointConfig, {"keep_last": 0}),
        (FaultsConfig, {"timeout": 0.0}),
        (FaultsConfig, {"on_spike": "stop"}),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(
    section: type[BaseModel], values: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        section(**values)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        (BudgetConfig, {}, "amount"),
        (OptimizerConfig, {}, "lr"),
        (ModelConfig, MODEL, "init_std"),
    ],
)
def test_infinite_values_are_refused(
    section: type[BaseModel], values: dict[str, Any], key: str, value: float
) -> None:
    """A budget without an end never leaves the warm-up; an infinite rate makes NaN."""
    with pytest.raises(ValidationError):
        section(**values, **{key: value})


def test_whole_numbers_serve_as_fractions() -> None:
    assert BudgetConfig(amount=1000).amount == 1000
    assert OptimizerConfig(lr=1).lr == 1


def test_a_comparison_needs_a_member() -> None:
    with pytest.raises(ValidationError, match="members"):
        CompareConfig(
            output="o",
            data=DataConfig(corpus="c"),
            model=ModelConfig(**MODEL),
            training=TrainingConfig(budget=BudgetConfig(amount=1)),
            members={},
        )
