"""`megapt checkpoint`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from megapt.checkpoint.state import checkpoint_path
from megapt.cli.checkpoint import app
from megapt.distributed.ranks import Ranks
from megapt.errors import Exit
from tests.checkpoint.engines import (
    advance,
    make_engine,
    settings,
    states_of,
    train,
)
from tests.ranks import run_ranks
from tests.training.damage import flip


def make_run(folder: Path, stage: int) -> Path:
    """A run of two ranks with the checkpoints of its steps 1 to 3."""
    config = settings(stage)
    folder.mkdir()
    values = {**config.model_dump(), "checkpoint": {"keep_last": 2, "keep_every": 1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    run_ranks(2, train, folder / "checkpoints", config, 3, 1, {"keep_last": 3})
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stays as it is."""
    return make_run(tmp_path_factory.mktemp("whole") / "run", 2)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def call(*words: object) -> tuple[int, list[str], str]:
    """Run the command; return its exit code, the lines it prints, and what it complains of."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout.splitlines(), result.stderr


def weights_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(
        checkpoint_path(run / "checkpoints", step) / "model.safetensors"
    )
    return weights


def test_ls_tells_of_each_checkpoint(run: Path) -> None:
    code, [line], _ = call("ls", run, "--json")
    rows = json.loads(line)
    assert code == 0
    assert [(row["step"], row["kept"], row["damage"]) for row in rows] == [
        (1, ["every"], []),
        (2, ["last", "every"], []),
        (3, ["last", "every"], []),
    ]
    path = checkpoint_path(run / "checkpoints", 3)
    sizes = [file.stat().st_size for file in path.iterdir() if file.name != "checkpoint.json"]
    assert rows[2]["bytes"] == sum(sizes)
    assert (rows[2]["ranks"], rows[2]["zero_stage"], rows[2]["precision"]) == (2, 2, "fp32")
    (path / "trainer.json").unlink()
    code, lines, _ = call("ls", run)
    assert code == 0
    assert "kept: last, every" in lines[1]
    assert lines[2].split()[:2] == ["3", "corrupt:"]
    assert "trainer.json" in lines[2]


def test_verify_names_each_damaged_file(run: Path) -> None:
    assert call("verify", run) == (0, [f"step {step}: intact" for step in (1, 2, 3)], "")
    flip(checkpoint_path(run / "checkpoints", 2) / "model.safetensors")
    (checkpoint_path(run / "checkpoints", 2) / "trainer.json").unlink()
    (checkpoint_path(run / "checkpoints", 3) / "checkpoint.json").unlink()
    code, lines, _ = call("verify", run)
    assert code == 1
    assert lines[0] == "step 1: intact"
    assert sorted(line.split()[2] for line in lines[1:3]) == ["model.safetensors", "trainer.json"]
    assert lines[3].startswith("step 3: has no checkpoint.json")
    assert call("verify", run, 1)[0] == 0
    assert call("verify", run, 2)[0] == 1


def test_consolidate_writes_the_weights(run: Path, tmp_path: Path) -> None:
    for dtype, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        output = tmp_path / f"{dtype}.safetensors"
        code, lines, _ = call("consolidate", run, 2, "--output", output, "--dtype", dtype)
        assert (code, lines) == (0, [f"{output}: step 2, {dtype}"])
        found, expected = load_file(output), weights_of(run, 2)
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.equal(found[name], expected[name].to(kind))


def test_average_is_the_mean(run: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert call("average", run, 2, 3, "--output", a)[1] == [f"{a}: mean of the steps 2, 3"]
    assert call("average", run, "--last", 2, "--output", b)[0] == 0
    assert a.read_bytes() == b.read_bytes()
    two, three = weights_of(run, 2), weights_of(run, 3)
    for name, tensor in load_file(a).items():
        assert torch.equal(tensor, ((two[name].double() + three[name].double()) / 2).float())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["convert", "RUN", "7", "--output", "OUT"], "no checkpoint of step 7; it has 1, 2, 3"),
        (["convert", "RUN", "--output", "RUN"], "exists already"),
        (["consolidate", "RUN", "--output", "OUT/in/there"], "there is no folder"),
        (["average", "RUN", "2", "--output", "OUT"], "give two or more"),
        (["average", "RUN", "--output", "OUT"], "give either steps or --last"),
        (["average", "RUN", "2", "3", "--last", "2", "--output", "OUT"], "either steps or --last"),
        (["ls", "OUT"], "no run here"),
        (["verify", "OUT"], "no run here"),
    ],
)
def test_wrong_input_is_one_line(whole: Path, tmp_path: Path, words: list[str], part: str) -> None:
    places = {"RUN": str(whole), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    code, lines, said = call(*words)
    assert (code, lines) == (2, [])
    assert said.startswith("megapt: error: ")
    assert part in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_damaged_one_is_not_made_into_something_else(run: Path, tmp_path: Path) -> None:
    (checkpoint_path(run / "checkpoints", 3) / "model.safetensors").write_bytes(b"short")
    for command in ("convert", "consolidate"):
        code, _, said = call(command, run, "--output", tmp_path / "out")
        assert code == Exit.DAMAGED
        assert "model.safetensors has 5 bytes" in said
    assert not (tmp_path / "out").exists()


def load_universal(ranks: Ranks, folder: Path, stage: int) -> list[float]:
    """Load a universal checkpoint with DeepSpeed alone; return the losses of the next steps."""
    config = settings(stage)
    engine = make_engine(ranks, config)
    engine._engine.load_universal_checkpoint = lambda: True
    path, _ = engine._engine.load_checkpoint(str(folder))
    assert path is not None
    if stage == 3:
        # DeepSpeed's loader gives all groups the settings of the first, and one count of updates.
        optimizer = engine._engine.optimizer.optimizer
        for group in optimizer.param_groups[1:]:
            group["weight_decay"] = 0.0
        for state in optimizer.state.values():
            state["step"] = state["step"].clone()
    return advance(engine, ranks, 4, 5)


@pytest.mark.parametrize("stage", [0, 3])
def test_deepspeed_loads_what_is_converted(tmp_path: Path, stage: int) -> None:
    run = make_run(tmp_path / "run", stage)
    output = tmp_path / "universal"
    assert call("convert", run, "--output", output)[:2] == (0, [f"{output}: step 3"])
    for name, key in states_of(checkpoint_path(run / "checkpoints", 3)):
        assert (output / "step-00000003" / "zero" / name / f"{key}.pt").is_file()
    whole = run_ranks(1, train, tmp_path / "whole", settings(0), 5, 9)[0]
    for target in (2, 3):
        assert run_ranks(2, load_universal, output, target)[0] == pytest.approx(whole[3:], rel=1e-5)
