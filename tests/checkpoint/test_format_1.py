"""A run of a megapt that wrote checkpoints of format 1 goes on, and is read.

`format_1.tar.xz` holds `run`, the folder of a real one: ELECTRA with SwiGLU and biases on the
corpus of `tests.corpora`, two ranks at ZeRO stage 2 in float32 with an average of the weights,
killed in update 6 after the checkpoint of update 4. `expected.json` holds what the same version
wrote of the same run undisturbed, after update 4, and its scores of the checkpoint on 10 held-out
windows. Its ranks' heartbeats and TensorBoard files were left out, and the paths in its
config.yaml made relative.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from megapt.checkpoint.manifest import FORMAT, read_manifest
from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import checkpoint_path
from megapt.checkpoint.weights import moved_rows
from megapt.cli.checkpoint import app
from megapt.config import RunConfig
from megapt.data import Corpus
from megapt.distributed.shards import Shards
from megapt.evaluation import load_run
from megapt.evaluation.evaluate import evaluate_run
from tests.ranks import run_ranks
from tests.training.runs import merged, records_of, train

STEP = 4
MODULES = ("trunk", "generators.generator")
FUSED = {
    f"{module}.blocks.0.{matrix}.{kind}"
    for module in MODULES
    for matrix in ("attention.qkv", "feedforward.up")
    for kind in ("weight", "bias")
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with the old run, and what is expected of it."""
    with tarfile.open(Path(__file__).with_name("format_1.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def config_of(old: Path, corpus: Path, **changes: Any) -> RunConfig:
    """The old run's own configuration, at another place."""
    values = RunFolder(old / "run").load_config().model_dump()
    place = {"output": str(old / "run"), "data": {"corpus": str(corpus)}}
    return RunConfig.model_validate(merged(merged(values, place), changes))


def expected_of(old: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((old / "expected.json").read_text())
    return expected


def path_of(old: Path) -> Path:
    return checkpoint_path(old / "run" / "checkpoints", STEP)


def moved_of(old: Path) -> dict[str, torch.Tensor]:
    """Place in the files of each row, of what has moved indeed."""
    moved = moved_rows(path_of(old), RunFolder(old / "run").load_config().model)
    assert moved.keys() == FUSED
    assert all((rows.diff() != 1).any() for rows in moved.values())
    return moved


@pytest.mark.parametrize(
    ("world", "stage", "output"),
    [(2, 2, "run"), (2, 3, "run"), (1, 0, "branch")],
    ids=["as it was", "at another stage", "as the parent of a branch"],
)
def test_it_goes_on_as_its_own_version_would_have(
    old: Path, corpus_folder: Path, world: int, stage: int, output: str
) -> None:
    assert Corpus(corpus_folder).fingerprint == RunFolder(old / "run").fingerprint
    assert read_manifest(path_of(old)).format == 1
    changes: dict[str, Any] = {"output": str(old / output), "parallel": {"zero_stage": stage}}
    if output != "run":
        changes["branch"] = {"run": str(old / "run")}
    config = config_of(old, corpus_folder, **changes)
    run_ranks(world, train, config)
    found = [record for record in records_of(config) if record["step"] > STEP]
    expected = expected_of(old)["steps"]
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["split"] == theirs.pop("split")
        assert {key: mine[key] for key in theirs} == pytest.approx(theirs, rel=1e-5)
    newest = checkpoint_path(old / output / "checkpoints", found[-1]["step"])
    assert read_manifest(newest).format == FORMAT


def test_its_weights_are_evaluated_as_before(old: Path, corpus_folder: Path) -> None:
    scores = evaluate_run(str(old / "run"), 10, str(corpus_folder))["model"]
    assert scores == pytest.approx(expected_of(old)["heldout"], rel=1e-5)


def call(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


def test_its_weights_are_written_in_the_new_order(old: Path) -> None:
    moved, output = moved_of(old), old / "weights.safetensors"
    call("consolidate", old / "run", "--output", output)
    found, files = load_file(output), load_file(path_of(old) / "model.safetensors")
    assert found.keys() == files.keys()
    for name, tensor in files.items():
        expected = tensor[moved[name]] if name in moved else tensor
        assert torch.equal(found[name], expected), name
    state = load_run(old / "run", torch.device("cpu")).model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in found.items())


def test_its_states_are_converted_in_the_new_order(old: Path) -> None:
    moved, output = moved_of(old), old / "universal"
    call("convert", old / "run", "--output", output)
    shards = Shards(path_of(old))
    for name in shards.shapes:
        for key in ("fp32", "exp_avg", "exp_avg_sq"):
            file = output / path_of(old).name / "zero" / name / f"{key}.pt"
            tensor = shards.whole(name, key)
            expected = tensor[moved[name]] if name in moved else tensor
            assert torch.equal(torch.load(file)["param"], expected), (name, key)
