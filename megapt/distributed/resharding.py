"""Loads a checkpoint into an engine with other ranks, another ZeRO stage, or another row order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megapt.distributed.shards import WEIGHT, Fragment, Shards, partition
from megapt.errors import ConfigError


def load_engine(engine: Any, path: Path, moved: Mapping[str, Tensor] = {}) -> None:
    """Load weights and optimizer states of the checkpoint at `path`. All ranks must call it.

    DeepSpeed itself loads a checkpoint of the same number of ranks and the same ZeRO stage.
    Otherwise each rank reads its own elements and passes them to DeepSpeed as if it had saved them.
    Optimizer settings, such as weight decay, then come from the configuration.

    Args:
        engine: DeepSpeed's engine.
        path: folder of the checkpoint.
        moved: see `Shards`.

    Raises:
        ConfigError: the checkpoint is of another model, or its states cannot be resharded.
        DamagedError: a parameter in the checkpoint is incomplete.
    """
    saved = Shards(path, moved)
    stage, world = engine.zero_optimization_stage(), engine.seq_dp_world_size
    same = saved.stage == stage and (saved.world == world or not stage)
    swapped = engine.zero_nvme_offload_optimizer()
    if (path / "offloaded_tensors").exists() != swapped or (swapped and not same):
        raise ConfigError(
            f"{path}: optimizer states on NVMe cannot be resharded; resume with the same number of "
            f"ranks, parallel.zero_stage and parallel.offload_optimizer"
        )
    if swapped and moved:
        raise ConfigError(
            f"{path}: its rows are in the order of an earlier megapt, and optimizer states on NVMe "
            f"cannot be reordered; resume with that version"
        )
    if same and not moved:
        engine.load_checkpoint(str(path.parent), tag=path.name)
        return
    groups = _groups(engine, stage)
    _check_names(saved, groups, path)
    weights, states = _flats(saved, groups), _states(saved, groups)
    _load_buffers(saved, engine.module)
    with torch.no_grad():
        if stage:
            _load_zero(engine.optimizer, saved, weights, states, stage, world)
        else:
            _load_plain(engine, weights, states)
    for counter in ("global_steps", "global_samples", "skipped_steps"):
        setattr(engine, counter, saved.model[counter])


@dataclass(frozen=True)
class _Group:
    """A flat tensor of this rank, and the parameters in it."""

    numel: int
    """Number of elements, including the padding at the end."""
    names: Sequence[str]
    """All parameters of the group, on any rank."""
    fragments: dict[str, Fragment]
    """Parameter name -> the fragment that this rank holds."""


def _groups(engine: Any, stage: int) -> list[_Group]:
    """Return this rank's flat tensors; without ZeRO, each parameter is its own group."""
    names = {parameter: name for name, parameter in engine.module.named_parameters()}
    optimizer = engine.optimizer
    if stage == 0:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        return [
            _Group(p.numel(), [names[p]], {names[p]: Fragment(0, p.numel(), number, 0)})
            for number, p in enumerate(trained)
        ]
    if stage == 3:
        return _groups_of_stage_3(engine, names)
    groups = []
    flats = optimizer.single_partition_of_fp32_groups
    for number, (group, flat) in enumerate(zip(optimizer.bit16_groups, flats, strict=True)):
        fragments = {}
        for p in group:
            if (held := p._hp_mapping) is not None:
                at = held.lp_fragment_address
                fragments[names[p]] = Fragment(
                    at.start, at.numel, number, held.hp_fragment_address.start
                )
        groups.append(_Group(flat.numel(), [names[p] for p in group], fragments))
    return groups


def _groups_of_stage_3(engine: Any, names: dict[Any, str]) -> list[_Group]:
    optimizer = engine.optimizer
    rank = torch.distributed.get_rank(optimizer.dp_process_group)
    world = torch.distributed.get_world_size(optimizer.dp_process_group)
    groups = []
    flats = optimizer.fp32_partitioned_groups_flat
    for number, (group, flat) in enumerate(zip(optimizer.fp16_groups, flats, strict=True)):
        fragments, offset = {}, 0
        for p in group:
            start, numel = partition(rank, p.ds_numel, world)
            fragments[names[p]] = Fragment(start, numel, number, offset)
            offset += math.ceil(p.ds_numel / world)
        groups.append(_Group(flat.numel(), [names[p] for p in group], fragments))
    return groups


def _check_names(saved: Shards, groups: Sequence[_Group], path: Path) -> None:
    mine = {name for group in groups for name in group.names}
    wrong = sorted(mine ^ saved.shapes.keys())
    if wrong:
        raise ConfigError(f"{path}: does not fit the model: {', '.join(wrong[:3])}")


def _flat(saved: Shards, group: _Group, key: str) -> Tensor:
    flat = torch.zeros(group.numel)
    for name, fragment in group.fragments.items():
        saved.read(
            name, key, fragment.start, flat[fragment.offset : fragment.offset + fragment.numel]
        )
    return flat


def _flats(saved: Shards, groups: Sequence[_Group]) -> list[Tensor]:
    return [_flat(saved, group, WEIGHT) for group in groups]


def _states(saved: Shards, groups: Sequence[_Group]) -> dict[int, dict[str, Any]]:
    """Return the states of each group in the format of a torch optimizer's `state`."""
    return {
        number: {
            **{key: _flat(saved, group, key) for key in saved.keys(group.names[0])},
            **saved.numbers(group.names[0]),
        }
        for number, group in enumerate(groups)
    }


def _load_buffers(saved: Shards, module: torch.nn.Module) -> None:
    buffers = dict(module.named_buffers())
    for name in saved.model["buffer_names"]:
        buffers[name].copy_(saved.model["module"][name])


def _load_plain(engine: Any, weights: Sequence[Tensor], states: dict[int, dict[str, Any]]) -> None:
    """Load weights and states into torch's optimizer."""
    optimizer = engine.optimizer
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for number, (parameter, flat) in enumerate(zip(trained, weights, strict=True)):
        parameter.copy_(flat.view_as(parameter))
        for key, value in states[number].items():
            if isinstance(value, Tensor) and value.dim() == 1:
                states[number][key] = value.view_as(parameter)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _load_zero(
    optimizer: Any,
    saved: Shards,
    weights: Sequence[Tensor],
    states: dict[int, dict[str, Any]],
    stage: int,
    world: int,
) -> None:
    """Load the state dictionary that DeepSpeed's optimizer would have saved on this rank."""
    weights_key, states_key = {
        3: ("fp32_flat_groups", "optimizer_state_dict"),
    }.get(stage, ("single_partition_of_fp32_groups", "base_optimizer_state"))
    own = optimizer.state_dict()
    groups = own[states_key]["param_groups"]
    scaling = {
        key: saved.zero[key]
        for key in ("loss_scaler", "dynamic_loss_scale", "overflow")
        if key in saved.zero
    }
    mine = {
        **own,
        **scaling,
        weights_key: weights,
        states_key: {"state": states, "param_groups": groups},
    }
    if stage == 3:
        optimizer.checkpoint_event_prologue()
        optimizer.load_state_dict([mine] * world)
        optimizer.checkpoint_event_epilogue()
    else:
        optimizer.load_state_dict([mine] * world, load_from_fp32_weights=True)
        optimizer.update_lp_params()
