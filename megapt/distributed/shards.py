"""The state of every parameter in a checkpoint, whatever ranks and ZeRO stage wrote it.

DeepSpeed writes flat tensors, of which each rank holds its part: a parameter lies in pieces in the
files of several ranks. Its own converter to "universal" checkpoints merges them on disk, for Adam
and for stages 1 to 3. Here they are read where they are: the files are mapped into memory, and a
rank that resumes reads only the elements that it will hold.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megapt.distributed.start import import_deepspeed
from megapt.errors import ConfigError, DamagedError

WEIGHT = "fp32"
"""Key of a parameter's own values among those of its optimizer states."""


@dataclass(frozen=True)
class Piece:
    """Consecutive elements of a parameter in a flat tensor."""

    start: int
    """In the parameter."""
    numel: int
    group: int
    """Number of the flat tensor."""
    offset: int
    """In the flat tensor."""


@dataclass(frozen=True)
class Part:
    """What one rank has written."""

    flats: Sequence[Tensor]
    """Weights, float32."""
    states: Sequence[Mapping[str, Any]]
    """Of the optimizer, of each flat tensor: others of its kind, and single numbers."""
    pieces: dict[str, Piece] = field(default_factory=dict)
    """By name of a parameter."""


def read_file(file: Path) -> Any:
    """Return the content of a file of DeepSpeed's; its tensors are read when they are used."""
    import_deepspeed()  # The files name its classes.
    return torch.load(file, map_location="cpu", mmap=True, weights_only=False)


def partition(start_rank: int, numel: int, world: int) -> tuple[int, int]:
    """Return (first element, number of elements) of a parameter that a rank of stage 3 holds."""
    share = math.ceil(numel / world)
    first = min(start_rank * share, numel)
    return first, min(share, numel - first)


class Shards:
    """A checkpoint's states by parameter.

    Args:
        path: of the checkpoint.
        moved: name of a parameter -> place in the files of each row, where it is another than in
            the parameter; int64 [rows].
    """

    def __init__(self, path: Path, moved: Mapping[str, Tensor] = {}) -> None:
        self._path = path
        self._moved = moved
        self._optimizer_files = _by_rank(path, "*zero_pp_rank_*_optim_states.pt")

    @property
    def world(self) -> int:
        """Ranks that the states are spread over; 1 without ZeRO."""
        return max(len(self._optimizer_files), 1)

    @cached_property
    def stage(self) -> int:
        """ZeRO stage that wrote it."""
        return int(self.zero["zero_stage"]) if self._optimizer_files else 0

    @cached_property
    def zero(self) -> dict[str, Any]:
        """What ZeRO keeps beside the states, of the first rank; nothing without ZeRO."""
        if not self._optimizer_files:
            return {}
        zero: dict[str, Any] = read_file(self._optimizer_files[0])["optimizer_state_dict"]
        return zero

    @cached_property
    def model(self) -> dict[str, Any]:
        """DeepSpeed's file of the model, of the first rank."""
        model: dict[str, Any] = read_file(_by_rank(self._path, "*mp_rank_00_model_states.pt")[0])
        return model

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Of every parameter that is trained."""
        if self.stage:
            return {
                name: shape for group in self.model["param_shapes"] for name, shape in group.items()
            }
        names = [name for group in self.model["parameters"] for name in group]
        return {name: self.model["module"][name].shape for name in names}

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters, with their settings."""
        if not self.stage:
            saved = self.model["optimizer"]
        else:
            key = "optimizer_state_dict" if self.stage == 3 else "base_optimizer_state"
            saved = self.zero[key]
        groups: list[dict[str, Any]] = saved["param_groups"]
        return groups

    @cached_property
    def _parts(self) -> list[Part]:
        if not self.stage:
            return [self._unsharded()]
        read = self._part_of_stage_3 if self.stage == 3 else self._part
        parts = []
        done = dict.fromkeys(self.shapes, 0)
        for rank, file in enumerate(self._optimizer_files):
            part = read(read_file(file)["optimizer_state_dict"], rank, done)
            parts.append(part)
            for name, piece in part.pieces.items():
                done[name] += piece.numel
        for name, numel in done.items():
            if numel != self.shapes[name].numel():
                raise DamagedError(f"{self._path}: '{name}' is not whole: {numel} elements of it")
        return parts

    def _unsharded(self) -> Part:
        saved = self.model["optimizer"]
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        flats, states, pieces = [], [], {}
        for group, (name, number) in enumerate(zip(self.shapes, numbers, strict=True)):
            weight = self.model["module"][name]
            flats.append(weight.flatten())
            states.append(
                {
                    key: value.flatten()
                    if isinstance(value, Tensor) and value.shape == weight.shape
                    else value
                    for key, value in saved["state"].get(number, {}).items()
                }
            )
            pieces[name] = Piece(0, weight.numel(), group, 0)
        return Part(flats, states, pieces)

    def _part(self, saved: Mapping[str, Any], rank: int, done: Mapping[str, int]) -> Part:
        """Return what a rank of stage 1 or 2 has written.

        Each flat tensor is a group of parameters one after another; a rank holds a part of it.
        """
        pieces = {
            name: Piece(done[name], address.numel, group, address.start)
            for group, addresses in enumerate(saved["param_slice_mappings"])
            for name, address in addresses.items()
        }
        return Part(
            saved["single_partition_of_fp32_groups"], _states(saved["base_optimizer_state"]), pieces
        )

    def _part_of_stage_3(self, saved: Mapping[str, Any], rank: int, _: Mapping[str, int]) -> Part:
        """Return what a rank of stage 3 has written.

        Each flat tensor is this rank's parts of a group of parameters, one after another.
        """
        pieces = {}
        for group, shapes in enumerate(self.model["param_shapes"]):
            offset = 0
            for name, shape in shapes.items():
                start, numel = partition(rank, shape.numel(), self.world)
                pieces[name] = Piece(start, numel, group, offset)
                offset += math.ceil(shape.numel() / self.world)
        return Part(saved["fp32_flat_groups"], _states(saved["optimizer_state_dict"]), pieces)

    def _pieces(self, name: str) -> Iterator[tuple[Part, Piece]]:
        for part in self._parts:
            if name in part.pieces:
                yield part, part.pieces[name]

    def _state(self, name: str) -> Mapping[str, Any]:
        part, piece = next(self._pieces(name))
        return part.states[piece.group] if part.states else {}

    def keys(self, name: str) -> list[str]:
        """Return the optimizer states of a parameter that have a value an element."""
        return [key for key, value in self._state(name).items() if _is_flat(value)]

    def numbers(self, name: str) -> dict[str, Any]:
        """Return the other optimizer states of a parameter, such as Adam's count of updates.

        Raises:
            ConfigError: one of them is neither a number nor has a value an element.
        """
        numbers = {key: value for key, value in self._state(name).items() if not _is_flat(value)}
        for key, value in numbers.items():
            if isinstance(value, Tensor) and value.numel() > 1:
                raise ConfigError(
                    f"{self._path}: the optimizer's '{key}' has no value an element, so that it "
                    f"cannot be spread anew; resume with the parallel.zero_stage it was saved with"
                )
        # Parameters of one flat tensor share it; apart from each other each counts for itself.
        return copy.deepcopy(numbers)

    def read(self, name: str, key: str, start: int, out: Tensor) -> None:
        """Fill `out` with elements of a parameter, or of one of its states.

        Args:
            name: of the parameter.
            key: `WEIGHT`, or one of `keys`.
            start: first element.
            out: float32 (n,).
        """
        if name in self._moved:
            self._read_rows(name, key, start, out)
        else:
            self._read(name, key, start, out)

    def _read_rows(self, name: str, key: str, start: int, out: Tensor) -> None:
        """Fill `out` as `read` does, with rows that lie elsewhere in the files."""
        width, end = self.shapes[name][1:].numel(), start + len(out)
        for first, last, place in _runs(self._moved[name], start // width, -(-end // width)):
            low, high = max(start, first * width), min(end, last * width)
            at = low + (place - first) * width
            self._read(name, key, at, out[low - start : high - start])

    def _read(self, name: str, key: str, start: int, out: Tensor) -> None:
        """Fill `out` with elements as they follow each other in the files."""
        end = start + len(out)
        for part, piece in self._pieces(name):
            low, high = max(start, piece.start), min(end, piece.start + piece.numel)
            if low < high:
                flat = part.flats[piece.group] if key == WEIGHT else part.states[piece.group][key]
                at = piece.offset + low - piece.start
                out[low - start : high - start] = flat[at : at + high - low]

    def whole(self, name: str, key: str = WEIGHT) -> Tensor:
        """Return a parameter, or one of its states, float32, in its own shape."""
        shape = self.shapes[name]
        out = torch.empty(shape.numel())
        self.read(name, key, 0, out)
        return out.view(shape)


def _by_rank(path: Path, pattern: str) -> list[Path]:
    """Return the files of this pattern in the order of the ranks that wrote them."""

    def rank(file: Path) -> int:
        found = re.search(r"zero_pp_rank_(\d+)_", file.name)
        return int(found[1]) if found else 0

    return sorted(path.glob(pattern), key=rank)


def _runs(rows: Tensor, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, row after the last, place of the first) of rows in consecutive places."""
    places = rows[first:last].tolist()
    begin = 0
    for row in range(1, len(places) + 1):
        if row == len(places) or places[row] != places[row - 1] + 1:
            yield first + begin, first + row, places[begin]
            begin = row


def _is_flat(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1


def _states(saved: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the states in a torch optimizer's dictionary in the order of its parameters."""
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    return [saved["state"].get(number, {}) for number in numbers]
