"""Patches of DeepSpeed, applied when it is imported."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


def patch(on_cpu: bool) -> None:
    """Apply all patches; DeepSpeed must be imported already.

    Args:
        on_cpu: whether this job runs without GPUs.
    """
    if on_cpu:
        _disable_builds()
    else:
        _announce_builds()
    _hide_gathers()
    _silence_warnings()


def _disable_builds() -> None:
    """Declare all ops unavailable: on a CPU, DeepSpeed would otherwise build one for inference.

    A check which ops can be built would run compiler and linker on every rank.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def _announce_builds() -> None:
    """Print a line when DeepSpeed compiles a C++ or CUDA op, which can take minutes."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    build = OpBuilder.jit_load

    def jit_load(builder: Any, *args: Any, **kwargs: Any) -> Any:
        print(
            f"megapt: DeepSpeed is building its op '{builder.name}'; this takes some minutes once, "
            f"later starts use the build in TORCH_EXTENSIONS_DIR or ~/.cache/torch_extensions",
            file=sys.stderr,
            flush=True,
        )
        return build(builder, *args, **kwargs)

    OpBuilder.jit_load = jit_load


def _hide_gathers() -> None:
    """Hide ZeRO 3's hooks before and after a module from selective recomputation.

    Selective recomputation identifies an operation by its index among operations of the same kind.
    A gather adds view operations. Whether the forward pass or the recomputation runs a gather
    depends on the weights that are gathered already: none after a checkpoint is loaded, later the
    prefetched ones.

    Recomputation also stops in the middle of a module, as soon as it has computed everything that
    is needed. The modules that it does not leave would stay on DeepSpeed's stack of running
    modules, which would grow without limit.
    """
    from deepspeed.runtime.zero import parameter_offload

    hooks = parameter_offload.DeepSpeedZeRoOffload
    before = hooks.pre_sub_module_forward_function

    def reset_at_root(offload: Any, module: torch.nn.Module) -> None:
        if module is offload.module:
            parameter_offload.FWD_MODULE_STACK[:] = [module]  # As at the start.
        before(offload, module)

    hooks.pre_sub_module_forward_function = reset_at_root
    for name in ("pre_sub_module_forward_function", "post_sub_module_forward_function"):
        hidden = _disable_current_modes()(getattr(hooks, name))
        setattr(hooks, name, torch.compiler.disable(hidden))  # type: ignore[no-untyped-call]


def _silence_warnings() -> None:
    """Ignore torch's deprecation warnings about DeepSpeed's collectives, many lines per start.

    The filter matches a torch module, because the warning does not name DeepSpeed's.
    """
    warnings.filterwarnings(
        "ignore",
        r"`torch\.distributed\.(all_gather_into_tensor|reduce_scatter_tensor)` is deprecated",
        FutureWarning,
        r"torch\.distributed\.c10d_logger",
    )
