"""A checkpoint in DeepSpeed's universal format, which any DeepSpeed job can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megapt.distributed.shards import WEIGHT, Shards

_GLOBAL = ("loss_scaler", "dynamic_loss_scale", "overflow", "clip_grad")
"""DeepSpeed's optimizer settings next to the states."""


def write_universal(
    path: Path, output: Path, done: Callable[[int], None], moved: Mapping[str, Tensor] = {}
) -> None:
    """Write the states of the checkpoint at `path`, one folder per parameter.

    With the file `latest_universal`, `engine.load_checkpoint(output)` loads the result at ZeRO
    stages 1 to 3, if the engine's configuration has `{"checkpoint": {"load_universal": true}}`.
    DeepSpeed's converter supports only Adam, and no checkpoints without ZeRO.

    Args:
        path: folder of the checkpoint.
        output: a new folder.
        done: called with the number of bytes of each tensor that is written.
        moved: see `Shards`.
    """
    shards = Shards(path, moved)
    states = output / path.name / "zero"
    for name in shards.shapes:
        folder = states / name
        folder.mkdir(parents=True)
        for key in (WEIGHT, *shards.keys(name)):
            tensor = shards.whole(name, key)
            torch.save({"param": tensor, "cat_dim": 0}, folder / f"{key}.pt")
            done(tensor.nbytes)
        for key, value in shards.numbers(name).items():
            torch.save(value, folder / f"{key}.pt")
    torch.save(_optimizer_state(shards), states / "optimizer_state.pt")
    model = {key: value for key, value in shards.model.items() if key != "optimizer"}
    model["module"] = {name: shards.model["module"][name] for name in model["buffer_names"]}
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"):
        torch.save(model, output / path.name / name)
    (output / "latest_universal").write_text(path.name, encoding="utf-8")


def _optimizer_state(shards: Shards) -> dict[str, Any]:
    """Return the optimizer state that stages 1 and 2 read, and that stage 3 reads."""
    first = next(iter(shards.shapes))
    own = {key: shards.zero[key] for key in _GLOBAL if key in shards.zero}
    return {
        **own,
        "ds_version": shards.model["ds_version"],
        "param_groups": shards.groups,
        "optimizer_state_dict": {
            "state": {0: shards.numbers(first)},
            "param_groups": shards.groups,
        },
    }
