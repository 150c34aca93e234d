"""Checkpoints: DeepSpeed's state, the trainer's few numbers, and plain weights for later use."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from megapt.config import ConfigError
from megapt.training.distributed import Ranks
from megapt.training.files import write_json

_STATE = "trainer.json"
WEIGHTS = "model.safetensors"


def steps_saved(folder: Path) -> list[int]:
    """Return the steps of all complete checkpoints, ascending."""
    return sorted(int(path.parent.name.split("-")[1]) for path in folder.glob(f"step-*/{_STATE}"))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` updates."""
    return folder / f"step-{step:08d}"


def full_weights(engine: Any) -> dict[str, Tensor]:
    """Gather all parameters in float32 on the CPU. All ranks must call it."""
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in engine.module.named_parameters():
        whole = safe_get_full_fp32_param(parameter)
        weights[name] = (parameter if whole is None else whole).detach().float().cpu().clone()
    return weights


def _sync_folder(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise when a file cannot be written into an OSError."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        message = "the checkpoint could not be written; is the disk full?"
        raise OSError(errno.EIO, message, str(path)) from error


def save_checkpoint(
    engine: Any, folder: Path, step: int, state: dict[str, Any], ranks: Ranks, keep: int
) -> None:
    """Write the checkpoint after `step` updates; it appears under its name once it is complete.

    Args:
        engine: DeepSpeed's.
        folder: of all checkpoints.
        step: updates done.
        state: the trainer's numbers, for JSON.
        ranks: of the job.
        keep: older checkpoints beyond this number are removed.
    """
    if steps_saved(folder)[-1:] == [step]:
        return  # A run that died after its last checkpoint comes by the same step again.
    final = checkpoint_path(folder, step)
    partial = folder / f".{final.name}.partial"
    if ranks.main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    ranks.barrier()
    with _writing(partial):
        engine.save_checkpoint(str(folder), tag=partial.name, save_latest=False)
    weights = full_weights(engine)
    ranks.barrier()
    if ranks.main:
        with _writing(partial):
            save_file(weights, partial / WEIGHTS)
        write_json(partial / _STATE, {"step": step, **state})
        _sync_folder(partial)
        partial.rename(final)
        for old in steps_saved(folder)[:-keep]:
            shutil.rmtree(checkpoint_path(folder, old))
    ranks.barrier()


def saved_state(folder: Path, ranks: Ranks) -> dict[str, Any] | None:
    """Return the trainer's state in the newest complete checkpoint; None if there is none.

    Raises:
        ConfigError: if it was written by another number of ranks.
    """
    steps = steps_saved(folder)
    if not steps:
        return None
    path = checkpoint_path(folder, steps[-1])
    state: dict[str, Any] = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if state["ranks"] != ranks.world:
        raise ConfigError(
            f"{path}: was written by {state['ranks']} ranks and this job has {ranks.world}; "
            f"resume on {state['ranks']}"
        )
    return state


def load_checkpoint(engine: Any, folder: Path, step: int) -> None:
    """Load what `save_checkpoint` had the engine write after `step` updates."""
    engine.load_checkpoint(str(folder), tag=checkpoint_path(folder, step).name)


def load_weights(folder: Path, model: torch.nn.Module) -> int:
    """Load the newest checkpoint's weights into `model` and return its step.

    Raises:
        ConfigError: if there is no checkpoint, or it is of another model.
    """
    steps = steps_saved(folder)
    if not steps:
        raise ConfigError(f"{folder.parent}: has no checkpoint yet")
    file = checkpoint_path(folder, steps[-1]) / WEIGHTS
    try:
        weights = load_file(file)
    except FileNotFoundError:
        raise ConfigError(f"{file}: missing from the checkpoint") from None
    except SafetensorError as error:
        raise ConfigError(f"{file}: damaged: {error}") from None
    missing, unexpected = model.load_state_dict(weights, strict=False)
    # A tied parameter stands in the file once, under the first of its names.
    names = {name for name, _ in model.named_parameters()}
    wrong = [name for name in missing if name in names] + list(unexpected)
    if wrong:
        raise ConfigError(f"{file}: does not fit the model: {', '.join(wrong[:3])}")
    return steps[-1]
