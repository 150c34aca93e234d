"""Checkpoints: DeepSpeed's state, the trainer's few numbers, and plain weights for later use."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import PlainSerializer, PlainValidator, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from megapt.config import ConfigError, Section
from megapt.config.section import NonNegativeFloat, PositiveInt
from megapt.data import LoaderState
from megapt.training.budget import Spent
from megapt.training.distributed import Ranks
from megapt.training.files import write_json

_STATE = "trainer.json"
WEIGHTS = "model.safetensors"


def _data_state(value: Any) -> LoaderState:
    return value if isinstance(value, LoaderState) else LoaderState.from_json(value)


_Data = Annotated[LoaderState, PlainValidator(_data_state), PlainSerializer(LoaderState.to_json)]


class TrainerState(Section):
    """Where a run stands; with DeepSpeed's state, all that a checkpoint holds."""

    step: PositiveInt
    """Updates done."""
    spent: dict[str, NonNegativeFloat]
    """On each axis."""
    ranks: PositiveInt
    """That wrote it."""
    data: _Data
    heldout: _Data
    """Only which shards are left out."""

    @field_validator("spent")
    @classmethod
    def _check_axes(cls, spent: dict[str, float]) -> dict[str, float]:
        if spent.keys() != Spent().as_dict().keys():
            raise ValueError("not the axes that runs are counted on")
        return spent


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
    engine: Any, folder: Path, state: TrainerState, ranks: Ranks, keep: int
) -> None:
    """Write a checkpoint; it appears under its name once it is complete.

    Args:
        engine: DeepSpeed's.
        folder: of all checkpoints.
        state: the trainer's numbers.
        ranks: of the job.
        keep: older checkpoints beyond this number are removed.
    """
    if steps_saved(folder)[-1:] == [state.step]:
        return  # A run that died after its last checkpoint comes by the same step again.
    final = checkpoint_path(folder, state.step)
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
        write_json(partial / _STATE, state.model_dump())
        _sync_folder(partial)
        partial.rename(final)
        for old in steps_saved(folder)[:-keep]:
            shutil.rmtree(checkpoint_path(folder, old))
    ranks.barrier()


def saved_state(folder: Path, ranks: Ranks, global_batch: int) -> TrainerState | None:
    """Return the trainer's state in the newest complete checkpoint; None if there is none.

    Raises:
        ConfigError: if it is not what `save_checkpoint` writes for a run with this global batch,
            or was written by another number of ranks.
    """
    steps = steps_saved(folder)
    if not steps:
        return None
    path = checkpoint_path(folder, steps[-1])
    try:
        state = TrainerState.model_validate_json((path / _STATE).read_bytes())
        if (state.step, state.data.windows) != (steps[-1], steps[-1] * global_batch):
            raise ValueError("of another step")
    except ValueError:
        raise ConfigError(
            f"{path / _STATE}: damaged, or of an earlier version; remove {path} to go on from the "
            f"checkpoint before it"
        ) from None
    if state.ranks != ranks.world:
        raise ConfigError(
            f"{path}: was written by {state.ranks} ranks and this job has {ranks.world}; "
            f"resume on {state.ranks}"
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
