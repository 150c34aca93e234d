"""The keys of DeepSpeed's configuration: passed through, set by megapt, or refused."""

from __future__ import annotations

SECTIONS = (
    "aio",
    "bf16",
    "comet",
    "comms_logger",
    "csv_monitor",
    "data_types",
    "flops_profiler",
    "fp16",
    "tensorboard",
    "timers",
    "timers.throughput",
    "wandb",
    "zero_optimization",
)
TYPES, _SWITCH = ("fp32", "bf16", "fp16"), (False, True)
VALUES: dict[str, tuple[str | bool, ...]] = {
    "communication_data_type": TYPES,
    "disable_python_gc": _SWITCH,
    "dump_state": _SWITCH,
    "memory_breakdown": _SWITCH,
    "seq_parallel_communication_data_type": TYPES,
    "wall_clock_breakdown": _SWITCH,
}
"""Top-level key -> its allowed values."""

PASSED = (*SECTIONS, *VALUES)
"""Sections and top-level keys that are passed through."""

PACKAGES = {"comet": "comet_ml", "tensorboard": "tensorboard", "wandb": "wandb"}
"""Section -> the Python package that it needs if it is enabled."""

OWNED = {
    "train_batch_size": "training.global_batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.global_batch_size and training.micro_batch_size",
    "gradient_clipping": "optimizer.max_grad_norm",
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
    "zero_optimization.cpu_offload_param": "parallel.offload_param",
    "zero_optimization.offload_optimizer.device": "parallel.offload_optimizer",
    "zero_optimization.offload_optimizer.nvme_path": "parallel.nvme_path",
    "zero_optimization.offload_param.device": "parallel.offload_param",
    "zero_optimization.offload_param.nvme_path": "parallel.nvme_path",
    "zero_optimization.zero_hpz_partition_size": "parallel.zero_hpz_partition_size",
    "zero_optimization.zero_quantized_weights": "parallel.zero_quantized_weights",
    "zero_optimization.zero_quantized_gradients": "parallel.zero_quantized_gradients",
}
"""Key -> the megapt setting that determines it."""

REFUSED = {
    **dict.fromkeys(
        (
            "gradient_allreduce_op",
            "gradient_predivide_factor",
            "managed_gradient_accumulation",
            "prescale_gradients",
        ),
        "would change the gradient, which megapt normalizes over the whole update",
    ),
    **dict.fromkeys(
        ("bf16.check_grad_overflow", "zero_optimization.compute_grad_norm"),
        "megapt skips every update whose gradient norm is not finite",
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
"""Key -> why megapt refuses it."""
