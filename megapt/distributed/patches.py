"""What is changed of DeepSpeed when it is imported, so that nothing surprises in a run."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


def patch(on_cpu: bool) -> None:
    """Change DeepSpeed, which is imported already.

    Args:
        on_cpu: whether this job runs without GPUs.
    """
    if on_cpu:
        _build_nothing()
    else:
        _announce_builds()
    _set_gathers_apart()
    _silence()


def _build_nothing() -> None:
    """Declare all ops unavailable: on a CPU DeepSpeed would build one unasked, for inference.

    To ask which could be built would run compiler and linker in each rank.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def _announce_builds() -> None:
    """Tell the user when DeepSpeed compiles a C++ or CUDA op, which can take minutes."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    build = OpBuilder.jit_load

    def jit_load(builder: Any, *args: Any, **kwargs: Any) -> Any:
        print(
            f"megapt: DeepSpeed builds its op '{builder.name}' now; this takes some minutes once, "
            f"later starts use the result in TORCH_EXTENSIONS_DIR or ~/.cache/torch_extensions",
            file=sys.stderr,
            flush=True,
        )
        return build(builder, *args, **kwargs)

    OpBuilder.jit_load = jit_load


def _set_gathers_apart() -> None:
    """Keep what ZeRO 3 does before and after a module out of what is recorded of the module.

    Selective recomputation knows an operation by its number among its kind. A gather has views of
    its own, and whether the forward pass or the recomputation needs one depends on what was
    gathered before: after a checkpoint is loaded nothing is, later some is prefetched.

    A recomputation also ends in the midst of a module, as soon as nothing more is wanted of it.
    DeepSpeed's stack of the modules that are running would grow by these for ever.
    """
    from deepspeed.runtime.zero import parameter_offload

    hooks = parameter_offload.DeepSpeedZeRoOffload
    before = hooks.pre_sub_module_forward_function

    def from_the_root(offload: Any, module: torch.nn.Module) -> None:
        if module is offload.module:
            parameter_offload.FWD_MODULE_STACK[:] = [module]  # as at the start
        before(offload, module)

    hooks.pre_sub_module_forward_function = from_the_root
    for name in ("pre_sub_module_forward_function", "post_sub_module_forward_function"):
        apart = _disable_current_modes()(getattr(hooks, name))
        setattr(hooks, name, torch.compiler.disable(apart))  # type: ignore[no-untyped-call]


def _silence() -> None:
    """Drop torch's advice to DeepSpeed on the names of collectives, many lines at each start.

    The warning names the module of torch that the call passed through, not DeepSpeed's.
    """
    warnings.filterwarnings(
        "ignore",
        r"`torch\.distributed\.(all_gather_into_tensor|reduce_scatter_tensor)` is deprecated",
        FutureWarning,
        r"torch\.distributed\.c10d_logger",
    )
