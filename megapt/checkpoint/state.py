"""The trainer's part of a checkpoint, and the paths of checkpoint folders and files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, PlainSerializer, PlainValidator, field_validator

from megapt.config import Section
from megapt.config.section import NonNegativeFloat, PositiveInt
from megapt.data import LoaderState
from megapt.data.budget import Spent
from megapt.errors import ConfigError, DamagedError, UnavailableError, is_unavailable

STATE = "trainer.json"
WEIGHTS = "model.safetensors"


def _data_state(value: Any) -> LoaderState:
    return value if isinstance(value, LoaderState) else LoaderState.from_json(value)


_Data = Annotated[LoaderState, PlainValidator(_data_state), PlainSerializer(LoaderState.to_json)]


class TrainerState(Section):
    """State of the trainer. A checkpoint holds it and DeepSpeed's state."""

    step: PositiveInt
    """Global batches consumed."""
    spent: dict[str, NonNegativeFloat]
    """Amount spent on each budget axis."""
    ranks: PositiveInt
    """Number of ranks that wrote the checkpoint."""
    sequence: PositiveInt = 1
    """Number of ranks that shared each micro-batch."""
    zero_stage: Annotated[int, Field(ge=0, le=3)]
    precision: str
    data: _Data
    validation: _Data = Field(validation_alias=AliasChoices("validation", "heldout"))
    """Only the shards that are skipped."""
    guard: dict[str, Any] = Field(default_factory=dict)
    """See `Guard.state`."""

    @field_validator("spent")
    @classmethod
    def _check_axes(cls, spent: dict[str, float]) -> dict[str, float]:
        if spent.keys() != Spent().as_dict().keys():
            raise ValueError("not the budget axes")
        return spent


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint."""

    step: int
    path: Path
    state: TrainerState


def read_state(path: Path) -> TrainerState:
    """Return the trainer's state in the checkpoint at `path`.

    Raises:
        ConfigError: another version of megapt wrote it.
        DamagedError: it cannot be read.
        UnavailableError: its storage is unavailable.
    """
    file = path / STATE
    try:
        return TrainerState.model_validate_json(file.read_bytes())
    except OSError as error:
        kind = UnavailableError if is_unavailable(error) else DamagedError
        raise kind(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(
            f"{file}: was written by another version of megapt; resume with that version, or "
            f"choose another folder for 'output'"
        ) from None


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` global batches."""
    return folder / f"step-{step:08d}"


def hidden_path(path: Path) -> Path:
    """Return the hidden folder in which the checkpoint at `path` is written."""
    return path.with_name(f".{path.name}.partial")


def replaced_path(path: Path) -> Path:
    """Return the hidden folder that keeps the checkpoint at `path` while another replaces it."""
    return path.with_name(f".{path.name}.replaced")


def step_of(name: str) -> int:
    """Return the step of a checkpoint folder with this name; 0 if it is none."""
    found = re.fullmatch(r"step-(\d+)", name)
    return int(found[1]) if found else 0


def steps_saved(folder: Path) -> list[int]:
    """Return the steps of all checkpoints, ascending, without hidden folders."""
    return sorted(step for path in folder.glob("step-*") if (step := step_of(path.name)))
