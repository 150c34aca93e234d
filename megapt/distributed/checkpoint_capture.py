"""Captures the files of a DeepSpeed checkpoint instead of letting DeepSpeed write them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor


def checkpoint_files(engine: Any, folder: Path, *, copying: bool) -> dict[str, Any]:
    """Return file name -> content of this rank's files. All ranks must call it.

    Args:
        engine: DeepSpeed's engine.
        folder: folder of the checkpoint.
        copying: whether to copy tensors to host memory.
    """
    with _captured(engine, copying=copying) as files:
        engine.save_checkpoint(
            str(folder.parent),
            tag=folder.name,
            client_state={"parameters": _parameter_groups(engine)},
            save_latest=False,
        )
    return files


def _parameter_groups(engine: Any) -> list[list[str]]:
    """Return the names of the parameters in each of the optimizer's groups.

    Without ZeRO, the checkpoint only has their indices.
    """
    names = {parameter: name for name, parameter in engine.module.named_parameters()}
    groups = engine.optimizer.param_groups if not engine.zero_optimization() else []
    return [[names[parameter] for parameter in group["params"]] for group in groups]


@contextmanager
def _captured(engine: Any, *, copying: bool) -> Iterator[dict[str, Any]]:
    """Capture the files that DeepSpeed would write inside the context.

    Only DeepSpeed knows the content of its files. megapt writes them later: with a full disk, one
    rank would otherwise raise between DeepSpeed's collectives, where the other ranks wait for it.

    Args:
        engine: DeepSpeed's engine.
        copying: whether to copy tensors to host memory, so that training can continue.

    Yields:
        File name -> content, complete after `engine.save_checkpoint`.
    """
    files: dict[str, Any] = {}
    own, script = engine.checkpoint_engine, engine._copy_recovery_script
    engine.checkpoint_engine = _CapturingEngine(own, files, copying)
    # DeepSpeed would copy a conversion script next to the checkpoints; `megapt checkpoint
    # consolidate` does more.
    engine._copy_recovery_script = lambda folder: None
    try:
        yield files
    finally:
        engine.checkpoint_engine, engine._copy_recovery_script = own, script


class _CapturingEngine:
    """DeepSpeed's checkpoint engine, except that it captures files instead of writing them."""

    def __init__(self, own: Any, files: dict[str, Any], copying: bool) -> None:
        self._own = own
        self._files = files
        self._copying = copying

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: the folder exists already."""

    def save(self, state_dict: Any, path: str) -> None:
        """Capture a file's content."""
        self._files[Path(path).name] = copy_to_host(state_dict) if self._copying else state_dict


def copy_to_host(value: Any, seen: dict[Any, Tensor] | None = None) -> Any:
    """Return a deep copy of nested containers with tensors in host memory.

    Tensors that are the same in `value`, such as tied weights, are the same in the copy.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.dtype)
        key = (*place, value.shape, value.stride())
        if value.numel() == 0:
            return value.detach().to("cpu", copy=True)
        if key not in seen:
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if type(value) in (dict, OrderedDict):
        return type(value)((key, copy_to_host(item, seen)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(copy_to_host(item, seen) for item in value)
    return copy.deepcopy(value)
