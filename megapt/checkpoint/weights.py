"""Reads the plain weights of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megapt.checkpoint.manifest import read_manifest
from megapt.checkpoint.state import WEIGHTS, checkpoint_path, steps_saved
from megapt.config import ModelConfig
from megapt.errors import ConfigError, DamagedError
from megapt.model.layout import fused_rows


class WeightsFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file. Each is read from the file at every access.

    Args:
        file: file to read.
        moved: name -> index in the file of each row of the tensor, int64 [rows]; only for tensors
            whose rows are in another order there.

    Raises:
        DamagedError: the file is missing or corrupt.
    """

    def __init__(self, file: Path, moved: Mapping[str, Tensor] = {}) -> None:
        try:
            opened: Any = safe_open(file, framework="pt")
        except FileNotFoundError:
            raise DamagedError(f"{file}: missing from the checkpoint") from None
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"{file}: corrupt: {error}") from None
        self._file = opened
        self._names: list[str] = list(opened.keys())
        self._moved = moved

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor[self._moved[name]] if name in self._moved else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shapes of all tensors, by name."""
        return {name: self._file.get_slice(name).get_shape() for name in self._names}


def moved_rows(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Return where the files of a checkpoint have the rows of matrices in another order.

    Args:
        path: folder of the checkpoint.
        config: model that the run trained.

    Returns:
        Name of a parameter -> index in the files of each row of the model, int64 [rows]. Empty if
        the order is that of the model.

    Raises:
        ConfigError: a later version of megapt wrote the checkpoint.
        DamagedError: the checkpoint is corrupt.
    """
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        raise DamagedError(f"{path}: {error}") from None
    return fused_rows(WeightsFile(path / WEIGHTS).shapes, config) if manifest.format == 1 else {}


def open_weights(path: Path, config: ModelConfig) -> WeightsFile:
    """Return the plain weights of the checkpoint at `path`; see `moved_rows`."""
    return WeightsFile(path / WEIGHTS, moved_rows(path, config))


def load_weights(
    folder: Path, model: torch.nn.Module, config: ModelConfig, step: int | None = None
) -> int:
    """Load a checkpoint's weights into `model` and return its step.

    Args:
        folder: checkpoint folder of the run.
        model: model that the run trained.
        config: configuration of the model.
        step: step of the checkpoint; by default the newest.

    Raises:
        ConfigError: there is no such checkpoint, or it is of another model.
        DamagedError: its weights are missing or corrupt.
    """
    step = choose_step(folder, step)
    file = checkpoint_path(folder, step) / WEIGHTS
    weights = open_weights(file.parent, config)
    missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    # The file has a tied parameter only once, under the first of its names.
    names = {name for name, _ in model.named_parameters()}
    wrong = [name for name in missing if name in names] + list(unexpected)
    if wrong:
        raise ConfigError(f"{file}: does not fit the model: {', '.join(wrong[:3])}")
    return step


def choose_step(folder: Path, step: int | None) -> int:
    """Return the step of the newest checkpoint, or `step` if it is one of them.

    Raises:
        ConfigError: there is no checkpoint, or none of this step.
    """
    steps = steps_saved(folder)
    if not steps:
        raise ConfigError(f"{folder.parent}: has no checkpoint yet")
    if step is None:
        return steps[-1]
    if step not in steps:
        listed = ", ".join(map(str, steps))
        raise ConfigError(f"{folder.parent}: has no checkpoint of step {step}; it has {listed}")
    return step
