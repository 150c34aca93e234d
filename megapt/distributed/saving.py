"""What DeepSpeed would write into a checkpoint, taken from it instead."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor


def files_of(engine: Any, folder: Path, *, copying: bool) -> dict[str, Any]:
    """Return name of a file -> its content, of this rank. All ranks must call it.

    Args:
        engine: DeepSpeed's.
        folder: where the files would be.
        copying: whether tensors are copied to host memory.
    """
    with _taken_from(engine, copying=copying) as taken:
        engine.save_checkpoint(
            str(folder.parent),
            tag=folder.name,
            client_state={"parameters": _parameter_groups(engine)},
            save_latest=False,
        )
    return taken


def _parameter_groups(engine: Any) -> list[list[str]]:
    """Return the names of the parameters in each of the optimizer's groups.

    Without ZeRO, the file knows them by their numbers alone.
    """
    names = {parameter: name for name, parameter in engine.module.named_parameters()}
    groups = engine.optimizer.param_groups if not engine.zero_optimization() else []
    return [[names[parameter] for parameter in group["params"]] for group in groups]


@contextmanager
def _taken_from(engine: Any, *, copying: bool) -> Iterator[dict[str, Any]]:
    """Take what DeepSpeed would write inside, instead of letting it write.

    Only DeepSpeed knows what its files hold. When they are written is decided here: a full disk
    would otherwise raise in one rank in the midst of DeepSpeed's collectives, where the others
    wait for it.

    Args:
        engine: DeepSpeed's.
        copying: whether tensors are copied to host memory, because training goes on meanwhile.

    Yields:
        name of a file -> its content, complete after `engine.save_checkpoint`.
    """
    taken: dict[str, Any] = {}
    own, script = engine.checkpoint_engine, engine._copy_recovery_script
    engine.checkpoint_engine = _Taker(own, taken, copying)
    # A script of DeepSpeed's beside the checkpoints; `megapt checkpoint consolidate` does more.
    engine._copy_recovery_script = lambda folder: None
    try:
        yield taken
    finally:
        engine.checkpoint_engine, engine._copy_recovery_script = own, script


class _Taker:
    """DeepSpeed's checkpoint engine, but for what it writes."""

    def __init__(self, own: Any, taken: dict[str, Any], copying: bool) -> None:
        self._own = own
        self._taken = taken
        self._copying = copying

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """The folder is there already."""

    def save(self, state_dict: Any, path: str) -> None:
        """Take a file's content."""
        self._taken[Path(path).name] = copied(state_dict) if self._copying else state_dict


def copied(value: Any, seen: dict[Any, Tensor] | None = None) -> Any:
    """Return a copy of nested containers that shares nothing with it; tensors in host memory.

    Tensors that are one in `value`, such as tied weights, are one in the copy.
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
        return type(value)((key, copied(item, seen)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(copied(item, seen) for item in value)
    return copy.deepcopy(value)
