"""Plain weights in a file, and loaded for later use."""

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
    """The tensors of a safetensors file, each read when it is asked for.

    Args:
        file: to read.
        moved: name -> place in the file of each row, where it is another than in the tensor.

    Raises:
        DamagedError: the file is missing or damaged.
    """

    def __init__(self, file: Path, moved: Mapping[str, Tensor] = {}) -> None:
        try:
            opened: Any = safe_open(file, framework="pt")
        except FileNotFoundError:
            raise DamagedError(f"{file}: missing from the checkpoint") from None
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"{file}: damaged: {error}") from None
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
        """Of all tensors, by name."""
        return {name: self._file.get_slice(name).get_shape() for name in self._names}


def moved_rows(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Return where the rows lie in the files of a checkpoint of another order than the model's.

    Args:
        path: of the checkpoint.
        config: of the model that the run trained.

    Returns:
        Name of a parameter -> int64 [rows].

    Raises:
        ConfigError: it is of a later version of megapt.
        DamagedError: it is damaged.
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
        folder: of the run's checkpoints.
        model: that the run trained.
        config: of the model.
        step: of the checkpoint; by default the newest.

    Raises:
        ConfigError: if there is no such checkpoint, or it is of another model.
        DamagedError: if its weights are missing or damaged.
    """
    step = choose_step(folder, step)
    file = checkpoint_path(folder, step) / WEIGHTS
    weights = open_weights(file.parent, config)
    missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    # A tied parameter stands in the file once, under the first of its names.
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
