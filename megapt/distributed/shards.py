"""The state of every parameter in a checkpoint of any number of ranks and any ZeRO stage.

DeepSpeed writes flat tensors that are partitioned over the ranks, so fragments of a parameter lie
in the files of several ranks. DeepSpeed's converter to "universal" checkpoints merges them on disk,
for Adam and stages 1 to 3. This module reads them in place: it maps the files into memory, and a
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
"""Key of a parameter's values next to the keys of its optimizer states."""


@dataclass(frozen=True)
class Fragment:
    """Consecutive elements of a parameter that are stored in a flat tensor."""

    start: int
    """First element in the parameter."""
    numel: int
    """Number of elements."""
    group: int
    """Index of the flat tensor."""
    offset: int
    """First element in the flat tensor."""


@dataclass(frozen=True)
class RankStates:
    """The states that one rank saved."""

    flats: Sequence[Tensor]
    """Flat tensors of the weights, float32."""
    states: Sequence[Mapping[str, Any]]
    """Optimizer states of each flat tensor: flat tensors of the same size, and single numbers."""
    fragments: dict[str, Fragment] = field(default_factory=dict)
    """Parameter name -> fragment."""


def read_file(file: Path) -> Any:
    """Return the content of a DeepSpeed file; memory mapping reads tensors on first use."""
    import_deepspeed()  # The files refer to its classes.
    return torch.load(file, map_location="cpu", mmap=True, weights_only=False)


def partition(rank: int, numel: int, world: int) -> tuple[int, int]:
    """Return (first element, number of elements) of a parameter on a rank at stage 3."""
    share = math.ceil(numel / world)
    first = min(rank * share, numel)
    return first, min(share, numel - first)


class Shards:
    """The states of a checkpoint by parameter.

    Args:
        path: folder of the checkpoint.
        moved: parameter name -> index in the files of each row, int64 [rows], if the row order in
            the files differs from that of the parameter.
    """

    def __init__(self, path: Path, moved: Mapping[str, Tensor] = {}) -> None:
        self._path = path
        self._moved = moved
        self._optimizer_files = _by_rank(path, "*zero_pp_rank_*_optim_states.pt")

    @property
    def world(self) -> int:
        """Number of ranks over which the states are sharded; 1 without ZeRO."""
        return max(len(self._optimizer_files), 1)

    @cached_property
    def stage(self) -> int:
        """ZeRO stage of the checkpoint."""
        return int(self.zero["zero_stage"]) if self._optimizer_files else 0

    @cached_property
    def zero(self) -> dict[str, Any]:
        """State of the ZeRO optimizer of the first rank; empty without ZeRO."""
        if not self._optimizer_files:
            return {}
        zero: dict[str, Any] = read_file(self._optimizer_files[0])["optimizer_state_dict"]
        return zero

    @cached_property
    def model(self) -> dict[str, Any]:
        """Content of DeepSpeed's model file of the first rank."""
        model: dict[str, Any] = read_file(_by_rank(self._path, "*mp_rank_00_model_states.pt")[0])
        return model

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of every trained parameter."""
        if self.stage:
            return {
                name: shape for group in self.model["param_shapes"] for name, shape in group.items()
            }
        names = [name for group in self.model["parameters"] for name in group]
        return {name: self.model["module"][name].shape for name in names}

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups, with their settings."""
        if not self.stage:
            saved = self.model["optimizer"]
        else:
            key = "optimizer_state_dict" if self.stage == 3 else "base_optimizer_state"
            saved = self.zero[key]
        groups: list[dict[str, Any]] = saved["param_groups"]
        return groups

    @cached_property
    def _ranks(self) -> list[RankStates]:
        if not self.stage:
            return [self._unsharded()]
        read = self._rank_states_of_stage_3 if self.stage == 3 else self._rank_states
        parts = []
        done = dict.fromkeys(self.shapes, 0)
        for rank, file in enumerate(self._optimizer_files):
            part = read(read_file(file)["optimizer_state_dict"], rank, done)
            parts.append(part)
            for name, fragment in part.fragments.items():
                done[name] += fragment.numel
        for name, numel in done.items():
            if numel != self.shapes[name].numel():
                raise DamagedError(
                    f"{self._path}: '{name}' is incomplete: {numel} of {self.shapes[name].numel()} "
                    f"elements"
                )
        return parts

    def _unsharded(self) -> RankStates:
        saved = self.model["optimizer"]
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        flats, states, fragments = [], [], {}
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
            fragments[name] = Fragment(0, weight.numel(), group, 0)
        return RankStates(flats, states, fragments)

    def _rank_states(
        self, saved: Mapping[str, Any], rank: int, done: Mapping[str, int]
    ) -> RankStates:
        """Return the states that a rank saved at stage 1 or 2.

        Each flat tensor concatenates a group of parameters; a rank holds a partition of it.
        """
        fragments = {
            name: Fragment(done[name], address.numel, group, address.start)
            for group, addresses in enumerate(saved["param_slice_mappings"])
            for name, address in addresses.items()
        }
        return RankStates(
            saved["single_partition_of_fp32_groups"],
            _states(saved["base_optimizer_state"]),
            fragments,
        )

    def _rank_states_of_stage_3(
        self, saved: Mapping[str, Any], rank: int, _: Mapping[str, int]
    ) -> RankStates:
        """Return the states that a rank saved at stage 3.

        Each flat tensor concatenates this rank's partitions of a group of parameters.
        """
        fragments = {}
        for group, shapes in enumerate(self.model["param_shapes"]):
            offset = 0
            for name, shape in shapes.items():
                start, numel = partition(rank, shape.numel(), self.world)
                fragments[name] = Fragment(start, numel, group, offset)
                offset += math.ceil(shape.numel() / self.world)
        return RankStates(
            saved["fp32_flat_groups"], _states(saved["optimizer_state_dict"]), fragments
        )

    def _fragments(self, name: str) -> Iterator[tuple[RankStates, Fragment]]:
        for part in self._ranks:
            if name in part.fragments:
                yield part, part.fragments[name]

    def _state(self, name: str) -> Mapping[str, Any]:
        part, fragment = next(self._fragments(name))
        return part.states[fragment.group] if part.states else {}

    def keys(self, name: str) -> list[str]:
        """Return the keys of the optimizer states that have one value per element."""
        return [key for key, value in self._state(name).items() if _is_flat(value)]

    def numbers(self, name: str) -> dict[str, Any]:
        """Return the other optimizer states of a parameter, such as Adam's count of updates.

        Raises:
            ConfigError: one of them is neither a single number nor has one value per element.
        """
        numbers = {key: value for key, value in self._state(name).items() if not _is_flat(value)}
        for key, value in numbers.items():
            if isinstance(value, Tensor) and value.numel() > 1:
                raise ConfigError(
                    f"{self._path}: the optimizer's '{key}' does not have one value per element, "
                    f"so it cannot be resharded; resume with the parallel.zero_stage it was saved "
                    f"with"
                )
        # Parameters of one flat tensor share their numbers; after resharding they must not.
        return copy.deepcopy(numbers)

    def read(self, name: str, key: str, start: int, out: Tensor) -> None:
        """Fill `out` with consecutive elements of a parameter, or of one of its states.

        Args:
            name: parameter name.
            key: `WEIGHT`, or one of `keys`.
            start: first element.
            out: float32 [n].
        """
        if name in self._moved:
            self._read_rows(name, key, start, out)
        else:
            self._read(name, key, start, out)

    def _read_rows(self, name: str, key: str, start: int, out: Tensor) -> None:
        """Fill `out` like `read`, for a parameter whose row order in the files differs."""
        width, end = self.shapes[name][1:].numel(), start + len(out)
        for first, last, place in _runs(self._moved[name], start // width, -(-end // width)):
            low, high = max(start, first * width), min(end, last * width)
            at = low + (place - first) * width
            self._read(name, key, at, out[low - start : high - start])

    def _read(self, name: str, key: str, start: int, out: Tensor) -> None:
        """Fill `out` with consecutive elements in the order of the files."""
        end = start + len(out)
        for part, fragment in self._fragments(name):
            low, high = max(start, fragment.start), min(end, fragment.start + fragment.numel)
            if low < high:
                flat = (
                    part.flats[fragment.group]
                    if key == WEIGHT
                    else part.states[fragment.group][key]
                )
                at = fragment.offset + low - fragment.start
                out[low - start : high - start] = flat[at : at + high - low]

    def whole(self, name: str, key: str = WEIGHT) -> Tensor:
        """Return a full parameter, or one of its states, float32, in the parameter's shape."""
        shape = self.shapes[name]
        out = torch.empty(shape.numel())
        self.read(name, key, 0, out)
        return out.view(shape)


def _by_rank(path: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern, sorted by the rank that wrote them."""

    def rank(file: Path) -> int:
        found = re.search(r"zero_pp_rank_(\d+)_", file.name)
        return int(found[1]) if found else 0

    return sorted(path.glob(pattern), key=rank)


def _runs(rows: Tensor, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, end row, index of the first in the files) of runs of consecutive rows."""
    places = rows[first:last].tolist()
    begin = 0
    for row in range(1, len(places) + 1):
        if row == len(places) or places[row] != places[row - 1] + 1:
            yield first + begin, first + row, places[begin]
            begin = row


def _is_flat(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1


def _states(saved: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the states in a torch optimizer's state dictionary, in parameter order."""
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    return [saved["state"].get(number, {}) for number in numbers]
