"""DeepSpeed's configuration, derived from megapt's, which is its only source."""

from __future__ import annotations

from typing import Any

import torch

from megapt.config import Origins, ParallelConfig, RunConfig
from megapt.distributed.passthrough import passed_through
from megapt.distributed.ranks import Ranks
from megapt.distributed.start import import_deepspeed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Data type of weights and activations by `training.precision`."""


def zero_stage(config: RunConfig) -> int:
    """Return the effective ZeRO stage.

    Stage 1 replaces stage 0 in half precision, because DeepSpeed's half precision optimizers
    without ZeRO have two faults: that for bfloat16 starts with an update of zero gradients, which
    Adam counts and to which weight decay applies, and neither exposes its float32 weights.
    """
    stage: int = config.parallel.zero_stage
    return stage if config.training.precision == "fp32" else max(stage, 1)


def _zero(parallel: ParallelConfig, stage: int, pinned: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"stage": stage}
    for name, device in (
        ("offload_optimizer", parallel.offload_optimizer),
        ("offload_param", parallel.offload_param),
    ):
        if device != "none":
            settings[name] = {"device": device, "pin_memory": pinned}
        if device == "nvme":
            settings[name]["nvme_path"] = parallel.nvme_path
    if parallel.zero_hpz_partition_size > 1:
        settings["zero_hpz_partition_size"] = parallel.zero_hpz_partition_size
    if parallel.zero_quantized_weights:
        settings["zero_quantized_weights"] = True
    if parallel.zero_quantized_gradients:
        settings["zero_quantized_gradients"] = True
    return settings


def check_nvme(config: RunConfig, origins: Origins) -> None:
    """Refuse NVMe offload on a machine that cannot build the op for it.

    Raises:
        ConfigError: says what is missing.
    """
    for name in ("offload_optimizer", "offload_param"):
        if getattr(config.parallel, name) != "nvme":
            continue
        accelerator = import_deepspeed().accelerator.get_accelerator()
        if not accelerator.create_op_builder("AsyncIOBuilder").is_compatible(verbose=False):
            raise origins.error(
                f"parallel.{name}",
                "nvme needs libaio to build DeepSpeed's op async_io (package libaio-dev or "
                "libaio-devel); install it, or choose 'cpu'",
            )


def _check(config: RunConfig, ranks: Ranks, origins: Origins) -> None:
    """Refuse settings that these ranks do not support."""
    parallel = config.parallel
    on_cpu = ranks.device.type == "cpu"
    if config.training.precision == "fp16" and on_cpu:
        raise origins.error("training.precision", "fp16 needs a GPU; choose 'bf16' or 'fp32'")
    for name in ("zero_quantized_weights", "zero_quantized_gradients"):
        if getattr(parallel, name) and on_cpu:
            raise origins.error(f"parallel.{name}", "quantizes with CUDA kernels; needs a GPU")
    if ranks.world % parallel.zero_hpz_partition_size:
        raise origins.error(
            "parallel.zero_hpz_partition_size",
            f"{parallel.zero_hpz_partition_size} ranks do not divide the {ranks.world} ranks of "
            f"the job",
        )


def deepspeed_config(config: RunConfig, ranks: Ranks, origins: Origins) -> dict[str, Any]:
    """Return DeepSpeed's configuration, including the keys of the section `deepspeed`.

    Raises:
        ConfigError: for settings that these ranks do not support, and for a key of `deepspeed` that
            megapt sets itself or that DeepSpeed does not know.
    """
    _check(config, ranks, origins)
    training, stage = config.training, zero_stage(config)
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        # The engine gets each boundary explicitly: the accumulation may change between updates.
        "gradient_accumulation_steps": 1,
        # Without ZeRO, `Engine` clips with the norm that it has computed.
        "gradient_clipping": config.optimizer.max_grad_norm if stage else 0.0,
        "zero_optimization": _zero(config.parallel, stage, pinned=ranks.device.type == "cuda"),
        # The loss scale of fp16 is dynamic by default.
        "fp16": {"enabled": training.precision == "fp16"},
        # DeepSpeed skips updates that are not finite; float32 does so without this setting.
        "bf16": {"enabled": training.precision == "bf16", "check_grad_overflow": True},
        # On a CPU, offload uses torch's optimizer too, and nothing is compiled.
        "zero_force_ds_cpu_optimizer": False,
        # The trainer prints learning rate and metrics; DeepSpeed prints nothing.
        "steps_per_print": None,
    }
    return passed_through(config.deepspeed, settings, origins)
