"""What DeepSpeed is told: megapt's keys, what is passed on, and what is refused by its path."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import torch

from megapt.config import Origins, RunConfig
from megapt.distributed import passthrough
from megapt.distributed.deepspeed_config import check_nvme, deepspeed_config, zero_stage
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import import_deepspeed
from megapt.errors import ConfigError
from megapt.optim import check_optimizer, find_optimizer
from tests.distributed.engines import Step, one_step, tiny_config, tiny_engine
from tests.ranks import run_ranks
from tests.training.runs import ALONE

ON_CUDA = replace(ALONE, device=torch.device("cuda"))


def passing(stage: int = 2, precision: str = "fp32", **section: Any) -> RunConfig:
    return tiny_config(
        parallel={"zero_stage": stage}, training={"precision": precision}, deepspeed=section
    )


def check_engine(config: RunConfig, ranks: Ranks, origins: Origins) -> None:
    """What a run is asked before its engine is built."""
    check_optimizer(find_optimizer(config, origins), config, zero_stage(config), origins)
    deepspeed_config(config, ranks, origins)


def refusal(config: RunConfig, ranks: Ranks = ALONE) -> str:
    origins = Origins({"deepspeed": "run.yaml:7"})
    with pytest.raises(ConfigError) as error:
        check_engine(config, ranks, origins)
    return str(error.value)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage: set by parallel.zero_stage",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            "zero_optimization.offload_optimizer.device: set by parallel.offload_optimizer",
        ),
        (
            {"zero_optimization": {"offload_param": {"buffer_count": 4}}},
            "zero_optimization.offload_param: set parallel.offload_param first",
        ),
        ({"train_batch_size": 8}, "train_batch_size: set by training.global_batch_size"),
        ({"gradient_clipping": 2.0}, "gradient_clipping: set by optimizer.max_grad_norm"),
        ({"optimizer": {"type": "Adam"}}, "optimizer: set by the section optimizer"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler: set by the section schedule"),
        ({"fp16": {"enabled": True}}, "fp16.enabled: set by training.precision"),
        ({"bf16": {"check_grad_overflow": False}}, "bf16.check_grad_overflow: megapt skips"),
        ({"prescale_gradients": True}, "prescale_gradients: would change the gradient"),
        ({"tensor_parallel": {"autotp_size": 2}}, "tensor_parallel: megapt does not work with it"),
        ({"zero_optimizations": {}}, "zero_optimizations: unknown key; did you mean 'zero_opt"),
        (
            {"zero_optimization": {"reduce_bucketsize": 5}},
            "zero_optimization.reduce_bucketsize: unknown key; did you mean 'reduce_bucket_size'?",
        ),
        (
            {"zero_optimization": {"reduce_bucket_size": -5}},
            "zero_optimization.reduce_bucket_size: Input should be greater than 0",
        ),
        ({"aio": {"queue_dept": 8}}, "aio.queue_dept: unknown key; did you mean 'queue_depth'?"),
        ({"bf16": True}, "bf16: should be a section, not True"),
        ({"zero_optimization": 3}, "zero_optimization: should be a section, not 3"),
        ({"timers": None}, "timers: should be a section, not None"),
        ({"timers": {"throughput": 3}}, "timers.throughput: should be a section, not 3"),
        ({"dump_state": 3}, "dump_state: should be one of false, true, not 3"),
        (
            {"communication_data_type": "int8"},
            "communication_data_type: should be one of fp32, bf16, fp16, not 'int8'",
        ),
        ({"comms_logger": {"enabled": 3}}, "comms_logger.enabled: Input should be a valid boolean"),
    ],
)
def test_a_key_that_is_not_the_users_is_refused(section: dict[str, Any], expected: str) -> None:
    assert refusal(passing(**section)).startswith(f"run.yaml:7: deepspeed.{expected}")


@pytest.mark.parametrize(
    ("stage", "precision", "wanted", "expected"),
    [
        (1, "bf16", "fp32", "needs parallel.zero_stage 2"),
        (0, "fp32", "bf16", "gradients of fp32 are accumulated in fp32"),
        (3, "fp32", "fp16", "gradients of fp32 are accumulated in fp32"),
        (2, "bf16", "int8", "should be one of fp32, bf16, fp16, not 'int8'"),
    ],
)
def test_gradients_are_accumulated_in_a_type_that_fits(
    stage: int, precision: str, wanted: str, expected: str
) -> None:
    found = refusal(passing(stage, precision, data_types={"grad_accum_dtype": wanted}))
    assert found == f"run.yaml:7: deepspeed.data_types.grad_accum_dtype: {expected}"


@pytest.mark.parametrize(("stage", "precision"), [(2, "bf16"), (0, "fp32")])
def test_gradients_may_be_accumulated_in_float32(stage: int, precision: str) -> None:
    section = {"data_types": {"grad_accum_dtype": "fp32"}}
    deepspeed_config(passing(stage, precision, **section), ALONE, Origins())


@pytest.mark.parametrize(("section", "package"), [("wandb", "wandb"), ("comet", "comet_ml")])
def test_a_service_needs_its_package(
    monkeypatch: pytest.MonkeyPatch, section: str, package: str
) -> None:
    monkeypatch.setattr(passthrough, "find_spec", lambda name: None)
    deepspeed_config(passing(**{section: {"enabled": False}}), ALONE, Origins())
    found = refusal(passing(**{section: {"enabled": True}}))
    assert found == f"run.yaml:7: deepspeed.{section}: needs the Python package {package}"


def seen_by_deepspeed(ranks: Ranks, config: RunConfig) -> tuple[int, bool, int, bool]:
    with closing(tiny_engine(config, ranks)) as engine:
        _, applied = one_step(engine, ranks, Step(0, 2), 0.1)
        bucket: int = engine._engine.optimizer.reduce_bucket_size
        overlaps: bool = engine._engine.zero_overlap_comm()
        return bucket, overlaps, engine._engine.zero_optimization_stage(), applied


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_is_passed_on_arrives(stage: int) -> None:
    section = {"zero_optimization": {"reduce_bucket_size": 100, "overlap_comm": stage != 3}}
    config = passing(stage, **section)
    assert run_ranks(2, seen_by_deepspeed, config) == [(100, stage != 3, stage, True)] * 2


def test_megapts_own_settings_stay_beside_what_is_passed_on() -> None:
    found = deepspeed_config(passing(2, fp16={"hysteresis": 4}), ALONE, Origins())
    assert found["fp16"] == {"enabled": False, "hysteresis": 4}
    assert found["zero_optimization"] == {"stage": 2}


@pytest.mark.parametrize(("precision", "stage", "run"), [
    ("fp32", 0, 0), ("bf16", 0, 1), ("fp16", 0, 1), ("fp16", 3, 3), ("bf16", 2, 2),
])  # fmt: skip
def test_half_precision_is_run_under_zero(precision: str, stage: int, run: int) -> None:
    found = deepspeed_config(passing(stage, precision), ON_CUDA, Origins())
    assert found["zero_optimization"]["stage"] == run
    assert found["fp16"]["enabled"] == (precision == "fp16")


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"training": {"precision": "fp16"}}, "training.precision: fp16 needs a GPU"),
        (
            {"parallel": {"zero_stage": 3, "zero_quantized_weights": True}},
            "parallel.zero_quantized_weights:",
        ),
        (
            {"parallel": {"zero_stage": 3, "zero_quantized_gradients": True}},
            "parallel.zero_quantized_gradients:",
        ),
        (
            {"parallel": {"zero_stage": 3, "zero_hpz_partition_size": 2}},
            "parallel.zero_hpz_partition_size:",
        ),
        (
            {
                "parallel": {"zero_stage": 3, "offload_optimizer": "nvme", "nvme_path": "/nvme"},
                "optimizer": {"ema_decay": 0.9},
            },
            "optimizer.ema_decay: weights on NVMe are not averaged",
        ),
    ],
)
def test_what_cannot_run_here_is_refused(sections: dict[str, Any], expected: str) -> None:
    assert expected in refusal(tiny_config(**sections))


def test_nvme_without_libaio_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nvme = {"zero_stage": 3, "offload_param": "nvme", "nvme_path": "/nvme"}
    config = tiny_config(parallel=nvme)
    builder = import_deepspeed().accelerator.get_accelerator().get_op_builder("AsyncIOBuilder")
    for here in (True, False):
        monkeypatch.setattr(builder, "is_compatible", lambda self, verbose, here=here: here)
        if here:
            check_nvme(config, Origins())
        else:
            with pytest.raises(ConfigError, match=r"parallel.offload_param: nvme needs libaio"):
                check_nvme(config, Origins())
