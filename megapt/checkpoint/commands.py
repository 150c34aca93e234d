"""The commands of `megapt checkpoint`: they inspect the checkpoints of a run and convert them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from data_prep.files import partial_name, sync
from data_prep.progress import ByteProgress
from megapt.checkpoint.keeping import kept
from megapt.checkpoint.manifest import (
    Manifest,
    damage_of,
    missing_or_short,
    read_manifest,
)
from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import WEIGHTS, checkpoint_path, read_state, steps_saved
from megapt.checkpoint.weights import choose_step, moved_rows, open_weights
from megapt.config import ModelConfig
from megapt.distributed.deepspeed_config import DTYPES
from megapt.distributed.universal import write_universal
from megapt.errors import ConfigError, DamagedError, MegaptError


def list_checkpoints(run: str) -> list[dict[str, Any]]:
    """Return one description per checkpoint of a run, the oldest first.

    Raises:
        ConfigError: the folder holds no run.
    """
    folder = RunFolder(run)
    policy = folder.load_config().checkpoint
    rows: list[dict[str, Any]] = []
    scores: dict[int, float | None] = {}
    for step in steps_saved(folder.checkpoints):
        path = checkpoint_path(folder.checkpoints, step)
        row: dict[str, Any] = {"step": step, "path": str(path)}
        rows.append(row)
        scores[step] = None
        try:
            manifest, state = read_manifest(path), read_state(path)
        except (ValueError, MegaptError) as error:
            row["damage"] = [str(error)]
            continue
        scores[step] = manifest.score
        row |= {
            "date": manifest.date,
            "bytes": manifest.size,
            "ranks": state.ranks,
            "zero_stage": state.zero_stage,
            "precision": state.precision,
            "score": manifest.score,
            "damage": missing_or_short(path, manifest),
        }
    reasons = kept(scores, policy)
    return [{**row, "kept": reasons.get(row["step"], [])} for row in rows]


def verify(run: str, step: int | None) -> dict[int, list[str]]:
    """Hash the files of one checkpoint of a run, or of all.

    Returns:
        Step -> its problems, one line each.

    Raises:
        ConfigError: the folder holds no such checkpoint.
    """
    folder, _ = _open_run(run)
    chosen = choose_step(folder, step)
    steps = steps_saved(folder) if step is None else [chosen]
    found: dict[int, list[str]] = {}
    manifests: dict[int, Manifest] = {}
    for each in steps:
        try:
            manifests[each] = read_manifest(checkpoint_path(folder, each))
        except ValueError as error:
            found[each] = [str(error)]
    total = sum(manifest.size for manifest in manifests.values())
    with ByteProgress("verify", total) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        for each, manifest in manifests.items():
            path = checkpoint_path(folder, each)
            names = list(manifest.files)
            found[each] = []
            lines = pool.map(lambda name: damage_of(path, name, manifest.files[name]), names)  # noqa: B023
            for name, line in zip(names, lines, strict=True):
                progress.advance(manifest.files[name].size)
                found[each] += [line] if line else []
    return dict(sorted(found.items()))


def convert(run: str, step: int | None, output: Path) -> int:
    """Write a checkpoint in DeepSpeed's universal format; return its step.

    Raises:
        ConfigError: there is no such checkpoint, or `output` exists.
        DamagedError: the checkpoint is corrupt.
    """
    folder, model = _open_run(run)
    step = choose_step(folder, step)
    path = _verified(folder, step)
    moved = moved_rows(path, model)
    with _new_output(output) as hidden:
        hidden.mkdir()
        with ByteProgress("convert", read_manifest(path).size) as progress:
            write_universal(path, hidden, progress.advance, moved)
        for inside, _, names in os.walk(hidden):
            for name in names:
                sync(Path(inside) / name)
            sync(Path(inside))
    return step


def consolidate(run: str, step: int | None, output: Path, dtype: str) -> int:
    """Write the weights of a checkpoint into one safetensors file; return its step.

    With `optimizer.ema_decay` the weights are the moving average.

    Raises:
        ConfigError: there is no such checkpoint, or `output` exists.
        DamagedError: the checkpoint is corrupt.
    """
    folder, model = _open_run(run)
    step = choose_step(folder, step)
    weights = open_weights(_verified(folder, step, WEIGHTS), model)
    _save({name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}, output)
    return step


def average(run: str, steps: Sequence[int], last: int | None, output: Path) -> list[int]:
    """Write the mean of the weights of several checkpoints; return their steps.

    Raises:
        ConfigError: there are no such checkpoints or fewer than two, or `output` exists.
        DamagedError: one of them is corrupt.
    """
    folder, model = _open_run(run)
    if bool(steps) == (last is not None):
        raise ConfigError("average: give either steps or --last")
    chosen = [choose_step(folder, step) for step in dict.fromkeys(steps)]
    if last is not None:
        choose_step(folder, None)
        chosen = steps_saved(folder)[-last:]
    if len(chosen) < 2:
        raise ConfigError(
            f"average: {run} has {len(chosen)} of these checkpoints; give two or more"
        )
    files = [open_weights(_verified(folder, step, WEIGHTS), model) for step in chosen]
    mean: dict[str, Tensor] = {}
    for name in files[0]:
        total = sum(file[name].double() for file in files)
        assert isinstance(total, Tensor)
        mean[name] = (total / len(files)).float()
    _save(mean, output)
    return chosen


def _open_run(run: str) -> tuple[Path, ModelConfig]:
    """Return the checkpoint folder of a run, and the configuration of its model.

    Raises:
        ConfigError: the folder holds no run.
    """
    folder = RunFolder(run)
    return folder.checkpoints, folder.load_config().model


def _verified(folder: Path, step: int, only: str | None = None) -> Path:
    """Hash the files of a checkpoint, or only one of them, and return its path.

    Raises:
        DamagedError: the checkpoint is corrupt.
    """
    path = checkpoint_path(folder, step)
    try:
        files = read_manifest(path).files
        names = [only] if only else list(files)
        found = [damage_of(path, name, files[name]) for name in names]
        problems = [line for line in found if line]
    except ValueError as error:
        problems = [str(error)]
    if problems:
        raise DamagedError(f"{path}: {problems[0]}")
    return path


def _save(weights: dict[str, Tensor], output: Path) -> None:
    with _new_output(output) as hidden:
        save_file(weights, hidden)
        sync(hidden)


@contextmanager
def _new_output(output: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; it is renamed to `output` when it is complete.

    Raises:
        ConfigError: `output` exists, or its parent folder does not.
    """
    if output.exists():
        raise ConfigError(f"--output {output}: exists already; choose another name")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.absolute().parent}")
    hidden = partial_name(output)
    try:
        yield hidden
        hidden.rename(output)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        if hidden.is_file():
            hidden.unlink()
        raise
    sync(output.absolute().parent)
