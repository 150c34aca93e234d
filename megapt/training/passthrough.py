"""The section `deepspeed`: what of DeepSpeed's configuration megapt has no key for.

DeepSpeed ignores unknown keys at the top, and lets some override what a run relies on. Here every
key is either known and passed on, or refused by its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from megapt.config import Origins
from megapt.config.errors import nearest
from megapt.training.distributed import import_deepspeed

_PASSED = (
    "aio",
    "bf16",
    "comet",
    "comms_logger",
    "communication_data_type",
    "csv_monitor",
    "data_types",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "fp16",
    "memory_breakdown",
    "seq_parallel_communication_data_type",
    "tensorboard",
    "timers",
    "wall_clock_breakdown",
    "wandb",
    "zero_optimization",
)

_OWNED = {
    "train_batch_size": "training.global_batch",
    "train_micro_batch_size_per_gpu": "training.micro_batch",
    "gradient_accumulation_steps": "training.global_batch and training.micro_batch",
    "gradient_clipping": "optimizer.clip",
    "optimizer": "the section optimizer",
    "zero_allow_untested_optimizer": "optimizer.name",
    "zero_force_ds_cpu_optimizer": "parallel.offload_optimizer",
    "scheduler": "the section schedule",
    "amp": "training.precision",
    "bfloat16": "training.precision",
    "torch_autocast": "training.precision",
    "bf16.enabled": "training.precision",
    "fp16.enabled": "training.precision",
    "data_types.param_dtype": "training.precision",
    "compile": "training.compile",
    "activation_checkpointing": "training.recompute",
    "checkpoint": "the section checkpoint",
    "steps_per_print": "training.log_every",
    "zero_optimization.stage": "parallel.zero_stage",
    "zero_optimization.cpu_offload": "parallel.offload_optimizer",
    "zero_optimization.cpu_offload_param": "parallel.offload_parameters",
    "zero_optimization.offload_optimizer.device": "parallel.offload_optimizer",
    "zero_optimization.offload_optimizer.nvme_path": "parallel.nvme_path",
    "zero_optimization.offload_param.device": "parallel.offload_parameters",
    "zero_optimization.offload_param.nvme_path": "parallel.nvme_path",
    "zero_optimization.zero_hpz_partition_size": "parallel.secondary_partition",
    "zero_optimization.zero_quantized_weights": "parallel.quantized_weights",
    "zero_optimization.zero_quantized_gradients": "parallel.quantized_gradients",
}
"""Key -> the one of megapt that sets it."""

_REFUSED = {
    **dict.fromkeys(
        (
            "gradient_allreduce_op",
            "gradient_predivide_factor",
            "managed_gradient_accumulation",
            "prescale_gradients",
        ),
        "would change the gradient, which megapt normalises over the whole update",
    ),
    **dict.fromkeys(
        ("bf16.check_grad_overflow", "zero_optimization.compute_grad_norm"),
        "megapt leaves out every update whose gradient norm is not finite",
    ),
    **dict.fromkeys(
        (
            "autotuning",
            "compression_training",
            "data_efficiency",
            "expert_parallel",
            "hybrid_engine",
            "pipeline",
            "tensor_parallel",
            "weight_quantization",
            "bf16.bf16_master_weights_and_grads",
            "bf16.bf16_optimizer_states",
            "bf16.immediate_grad_update",
            "fp16.auto_cast",
            "fp16.fp16_master_weights_and_grads",
            "zero_optimization.elastic_checkpoint",
            "zero_optimization.legacy_stage1",
            "zero_optimization.offload_optimizer.ratio",
            "zero_optimization.offload_optimizer.super_offload",
            "zero_optimization.zenflow",
        ),
        "megapt does not work with it",
    ),
}


def _inner_keys(section: str) -> list[str]:
    """Return the keys that DeepSpeed knows in a section; none if it checks them by itself."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.swap_tensor.aio_config import AIO_DEFAULT_DICT
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    models = {
        "bf16": DeepSpeedBF16Config,
        "fp16": DeepSpeedFP16Config,
        "zero_optimization": DeepSpeedZeroConfig,
    }
    if section in models:
        fields = models[section].model_fields
        return [*fields, *(field.alias for field in fields.values() if field.alias)]
    if section == "data_types":
        return ["grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules"]
    return list(AIO_DEFAULT_DICT) if section == "aio" else []


def _paths(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the path of every key, sections before what is in them."""
    for key, value in section.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def _problem(path: str) -> str:
    if path in _OWNED:
        return f"set by {_OWNED[path]}"
    if path in _REFUSED:
        return _REFUSED[path]
    section, _, key = path.partition(".")
    if not key:
        known = [*_PASSED, *_OWNED, *_REFUSED]
        return "" if path in _PASSED else f"unknown key; {nearest(path, known)}"
    inner = _inner_keys(section)
    if inner and "." not in key and key not in inner:
        return f"unknown key; {nearest(key, inner)}"
    return ""


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merged(old, value)
        result[key] = value
    return result


def _check_values(section: Mapping[str, Any], settings: dict[str, Any], origins: Origins) -> None:
    """Have DeepSpeed read the configuration, and pass on what it does not like."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))  # inside its section
        path = next((path for path in _paths(section) if path.endswith(key)), key)
        raise origins.error(f"deepspeed.{path}", first["msg"]) from None
    except (AssertionError, ValueError, TypeError, DeepSpeedConfigError) as error:
        raise origins.error("deepspeed", str(error)) from None


def passed_through(
    section: Mapping[str, Any], settings: dict[str, Any], origins: Origins
) -> dict[str, Any]:
    """Return DeepSpeed's configuration with what the section adds to it.

    Args:
        section: `deepspeed` of the run.
        settings: what megapt has set.
        origins: of the configuration.

    Raises:
        ConfigError: for a key that megapt sets itself, that would break what it promises, or that
            DeepSpeed does not know, and for a value that DeepSpeed does not take.
    """
    import_deepspeed()
    paths = list(_paths(section))
    for path in paths:
        if problem := _problem(path):
            raise origins.error(f"deepspeed.{path}", problem)
    for name, of_megapt in (
        ("offload_optimizer", "offload_optimizer"),
        ("offload_param", "offload_parameters"),
    ):
        path = f"zero_optimization.{name}"
        if path in paths and name not in settings["zero_optimization"]:
            raise origins.error(f"deepspeed.{path}", f"set parallel.{of_megapt} first")
    merged = _merged(settings, section)
    half = merged["bf16"]["enabled"] or merged["fp16"]["enabled"]
    if (
        half
        and "data_types.grad_accum_dtype" in paths
        and settings["zero_optimization"]["stage"] < 2
    ):
        raise origins.error("deepspeed.data_types.grad_accum_dtype", "needs parallel.zero_stage 2")
    if section:
        _check_values(section, merged, origins)
    return merged
